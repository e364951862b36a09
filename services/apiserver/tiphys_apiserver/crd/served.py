"""The versions of one definition, made ready to be served: stores, caches and conversions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from tiphys_apimachinery.codec import json_codec, proto_codec
from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.crd.info import CustomInfo, info_of
from tiphys_apiserver.crd.schema import VersionSchema
from tiphys_apiserver.crd.store import CustomStore
from tiphys_apiserver.crd.strategy import CustomStrategy, FieldPaths, accept
from tiphys_apiserver.crd.webhook_conversion import Caller, ConversionWebhook, WebhookConverter, webhook_of
from tiphys_apiserver.registry.conversion import Converter, RemoteConverter
from tiphys_apiserver.registry.strategy import Environment
from tiphys_apiserver.registry.table import ResourceTable, Served
from tiphys_apiserver.storage.cacher import Cacher
from tiphys_apiserver.storage.interface import Store
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat


@dataclass(frozen=True, slots=True)
class CustomKinds:
    """The custom resources in a table, as those see them who write documents about them."""

    table: ResourceTable

    @property
    def generation(self) -> int:
        """Grows with every one that comes or goes."""
        return self.table.generation

    def custom_infos(self) -> list[CustomInfo]:
        """What is known of each, in each version."""
        return [served.info for served in self.table.custom() if isinstance(served.info, CustomInfo)]


@dataclass(frozen=True, slots=True)
class Kinds:
    """Makes what serves a definition. caller asks the webhooks that convert."""

    store: Store
    environment: Environment
    caller: Caller

    def serve(self, crd: Any, is_ending: Callable[[], bool]) -> list[Served]:
        """Every served version; those that are not stored share the store of the one that is."""
        stored = next(version for version in crd.spec.versions if version.storage)
        infos = {
            version.name: info_of(crd, version, _schema(crd, version), storage_version=stored.name)
            for version in crd.spec.versions
        }
        home = infos[stored.name]
        webhook = webhook_of(crd, self.caller, self.environment.new_uid)
        others = infos if webhook is not None else {}
        # Each version may let other fields be selected. Those of all are read of every object, in its own version.
        fields = field_paths(infos.values())
        store = self._new_store(home, others, is_ending, fields)
        if webhook is not None:
            upgrader = WebhookConverter(webhook, home, home, store.cacher.format)
            store.follow({info.api_version: info.message for info in infos.values()}, upgrader.from_storage)
        elif set(crd.status.storedVersions) - {stored.name}:
            store.follow({}, None)
        served = [infos[version.name] for version in crd.spec.versions if version.served]
        if webhook is None:
            return [_served(info, store, None if info is home else _renaming(home, info)) for info in served]
        lies_at_home = set(crd.status.storedVersions) == {stored.name}
        return [_converted(info, store, webhook, is_home_of_all=lies_at_home and info is home) for info in served]

    def _new_store(
        self, info: CustomInfo, versions: Mapping[str, CustomInfo], is_ending: Callable[[], bool], fields: FieldPaths
    ) -> CustomStore:
        strategy = CustomStrategy(info, self.environment, is_ending, fields)
        others = {
            other.api_version: _new_format(other, tuple(fields), strategy)
            for other in versions.values()
            if other is not info
        }
        made = _new_format(info, tuple(fields), strategy)
        made.others = others
        cacher = Cacher(f"{info.storage_key_prefix}/", made, self.store, self.environment.clock)
        return CustomStore(info, strategy, self.store, cacher, environment=self.environment)


def _new_format(info: CustomInfo, fields: tuple[str, ...], strategy: CustomStrategy) -> CustomFormat:
    return CustomFormat(
        info.message,
        api_version=info.api_version,
        kind=info.kind,
        dumps=json_codec.dumps,
        field_names=fields,
        read_fields=strategy.selectable_fields,
    )


def _converted(info: CustomInfo, store: CustomStore, webhook: ConversionWebhook, *, is_home_of_all: bool) -> Served:
    home, made = cast(CustomInfo, store.resource), cast(CustomFormat, store.cacher.format)
    served_format = made.others.get(info.api_version, made)
    return _served(
        info, store, None, WebhookConverter(webhook, info, home, served_format, is_home_of_all=is_home_of_all)
    )


def _served(
    info: CustomInfo, store: CustomStore, converter: Converter | None, remote: RemoteConverter | None = None
) -> Served:
    made = Served(info, store, converter, remote)
    made.fields = frozenset(info.selectable_fields)
    return made


def field_paths(infos: Iterable[CustomInfo]) -> FieldPaths:
    """The selectable fields of these versions."""
    return {name: path for info in infos for name, path in zip(info.selectable_fields, info.field_paths, strict=True)}


class CustomFormat(ObjectFormat):
    """Reads stored objects as the definition has it now: with defaults that came later, without members that went.

    others are the formats of objects that lie in the store in another version and stay so until a webhook converts
    them, by apiVersion; without them a version is only a name.
    """

    others: Mapping[str, CustomFormat] = MappingProxyType({})

    def ingest(self, key: str, value: bytes, revision: int) -> CachedObject:
        """The object in a stored value. Raises UnreadableObject."""
        other = self.others and self.others.get(_api_version(value))
        if other:
            return other.ingest(key, value, revision)
        found = super().ingest(key, value, revision)
        obj = found.message()
        before = obj.content_json()
        settle(obj, type(obj).KIND.schema)
        if obj.content_json() == before and obj.metadata.resourceVersion == found.resource_version:
            return found
        return CachedObject(key, revision, obj, self)


def _api_version(value: bytes) -> str:
    """The version of a stored value; empty where it can't be read."""
    try:
        return proto_codec.decode_envelope(value)[0]
    except APIError:
        return ""


def settle(obj: Any, schema: VersionSchema) -> None:
    """Bring an object to a schema: prune it and fill in defaults."""
    obj.content = schema.read(obj.content, [])
    schema.fill(obj.content)


def _renaming(home: CustomInfo, info: CustomInfo) -> Converter:
    """The conversion that changes the version's name and nothing else (strategy None)."""
    there: Any = home.message
    here: Any = info.message

    def to_storage(obj: Any) -> Any:
        accept(obj, info)
        return _as(there, obj)

    def from_storage(obj: Any) -> Any:
        made = _as(here, obj)
        settle(made, info.schema)
        return made

    return Converter((home.group, home.version, home.plural), to_storage, from_storage, {})


def _as(cls: Any, obj: Any) -> Any:
    made = cls()
    made.CopyFrom(obj)
    return made


def _schema(crd: Any, version: Any) -> VersionSchema:
    text = b"{}"
    if version.HasField("schema") and version.schema.HasField("openAPIV3Schema"):
        text = json_codec.dumps(version.schema.openAPIV3Schema, with_type_meta=False)
    return VersionSchema(text, keeps_all=crd.spec.preserveUnknownFields)
