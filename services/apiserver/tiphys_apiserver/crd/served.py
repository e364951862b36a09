"""The versions of one definition, made ready to be served: stores, caches and conversions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tiphys_apimachinery.codec import json_codec
from tiphys_apiserver.crd.info import CustomInfo, info_of
from tiphys_apiserver.crd.schema import VersionSchema
from tiphys_apiserver.crd.strategy import CustomStrategy
from tiphys_apiserver.registry.conversion import Converter
from tiphys_apiserver.registry.store import ResourceStore
from tiphys_apiserver.registry.strategy import Environment
from tiphys_apiserver.registry.table import ResourceTable, Served
from tiphys_apiserver.storage.cacher import Cacher
from tiphys_apiserver.storage.interface import Store
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat
from tiphys_component.log import get_logger

_log = get_logger(__name__)


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
    """Makes what serves a definition."""

    store: Store
    environment: Environment

    def serve(self, crd: Any, is_ending: Callable[[], bool]) -> list[Served]:
        """Every served version; those that are not stored share the store of the one that is."""
        stored = next(version for version in crd.spec.versions if version.storage)
        home = info_of(crd, stored, _schema(crd, stored), storage_version=stored.name)
        store = self._new_store(home, is_ending)
        found: list[Served] = []
        for version in crd.spec.versions:
            if not version.served:
                continue
            if version.name != stored.name and crd.spec.conversion.strategy == "Webhook":
                # Nobody converts these yet, and an object shown unconverted would be a lie.
                _log.warning("version needs a conversion webhook: not served", definition=crd.metadata.name)
                continue
            if version.name == stored.name:
                found.append(Served(home, store, None))
                continue
            info = info_of(crd, version, _schema(crd, version), storage_version=stored.name)
            found.append(Served(info, store, _renaming(home, info)))
        return found

    def _new_store(self, info: CustomInfo, is_ending: Callable[[], bool]) -> ResourceStore:
        strategy = CustomStrategy(info, self.environment, is_ending)
        made = CustomFormat(
            info.message,
            api_version=info.api_version,
            kind=info.kind,
            dumps=json_codec.dumps,
            field_names=info.selectable_fields,
            read_fields=strategy.selectable_fields,
        )
        cacher = Cacher(f"{info.storage_key_prefix}/", made, self.store, self.environment.clock)
        return ResourceStore(info, strategy, self.store, cacher, environment=self.environment)


class CustomFormat(ObjectFormat):
    """Reads stored objects as the definition has it now: with defaults that came later, without members that went."""

    def ingest(self, key: str, value: bytes, revision: int) -> CachedObject:
        """The object in a stored value. Raises UnreadableObject."""
        found = super().ingest(key, value, revision)
        obj = found.message()
        before = obj.content_json()
        settle(obj, type(obj).KIND.schema)
        if obj.content_json() == before and obj.metadata.resourceVersion == found.resource_version:
            return found
        return CachedObject(key, revision, obj, self)


def settle(obj: Any, schema: VersionSchema) -> None:
    """Bring an object to a schema: prune it and fill in defaults."""
    obj.content = schema.read(obj.content, [])
    schema.fill(obj.content)


def _renaming(home: CustomInfo, info: CustomInfo) -> Converter:
    """The conversion that changes the version's name and nothing else (strategy None)."""
    there: Any = home.message
    here: Any = info.message

    def to_storage(obj: Any) -> Any:
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
