"""What the writes of one object and of many have in common: the steps between their beginning and the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.codec import proto_codec
from tiphys_apimachinery.errors import AlreadyExists, BadRequest, Conflict, FieldError, Invalid, NotFound
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.cel.aside import Aside
from tiphys_apiserver.registry import deletion, metadata
from tiphys_apiserver.registry.deletion import DeleteRequest
from tiphys_apiserver.registry.storage_errors import storage_errors
from tiphys_apiserver.registry.strategy import Environment, Strategy, WriteContext
from tiphys_apiserver.storage.cacher import Cacher
from tiphys_apiserver.storage.interface import KeyValue, Store


class WriteSteps:
    """The steps of one resource's writes in its storage version."""

    def __init__(
        self, resource: ResourceInfo, strategy: Strategy, store: Store, cacher: Cacher, *, environment: Environment
    ) -> None:
        self.resource = resource
        self.strategy = strategy
        self.cacher = cacher
        self._store = store
        self._environment = environment
        self._prefix = f"{resource.storage_key_prefix}/"
        self._api_version = resource.api_version
        self._message = resource.message
        # Objects may lie in the store in other versions than the one that is stored now.
        self.keeps_versions = False

    @property
    def aside(self) -> Aside:
        """Where rules that are written as expressions are asked."""
        return self._environment.aside

    # -- steps

    def _complete(self, ctx: WriteContext, obj: Any) -> list[FieldError]:
        """Give a new object what is not its author's to give; the faults of its metadata."""
        metadata.prepare_create(obj, uid=self._environment.new_uid(), now=ctx.now)
        if ctx.record_owner is None:
            del obj.metadata.managedFields[:]
        self.strategy.prepare_for_create(ctx, obj)
        if ctx.record_owner is not None:
            ctx.record_owner(obj, None)
        return self._name_errors(obj) + metadata.validate_metadata(obj.metadata)

    def _name_errors(self, obj: Any) -> list[FieldError]:
        name = obj.metadata.name
        if not name:
            return [FieldError.required("metadata.name", "name or generateName is required")]
        return [FieldError.invalid("metadata.name", name, why) for why in self.strategy.validate_name(name)]

    def _check_version(self, new: Any, old: Any) -> None:
        """Hold the object sent against the one stored. Raises Conflict, or Invalid where a version is needed."""
        asked = new.metadata.resourceVersion
        if asked and asked != old.metadata.resourceVersion:
            raise self._conflict(old.metadata.name)
        if not asked and not self.strategy.allow_unconditional_update:
            error = FieldError.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise Invalid.of(self.resource.kind, old.metadata.name, [error], group=self.resource.group)
        if new.metadata.uid and new.metadata.uid != old.metadata.uid:
            why = (
                f"Precondition failed: UID in precondition: {new.metadata.uid}, UID in object meta: {old.metadata.uid}"
            )
            raise self._conflict(old.metadata.name, why)

    def _apply_defaults(self, ctx: WriteContext, new: Any) -> None:
        if ctx.subresource == "status":
            self.strategy.apply_status_defaults(new)
        else:
            self.strategy.apply_defaults(new)

    @staticmethod
    def _keep_metadata(ctx: WriteContext, new: Any, old: Any) -> None:
        """Put back what is not the caller's to change."""
        metadata.prepare_update(new, old)
        if ctx.trusted or (ctx.record_owner is None and not new.metadata.managedFields):
            del new.metadata.managedFields[:]
            new.metadata.managedFields.MergeFrom(old.metadata.managedFields)

    @staticmethod
    def _own(ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Record whose the changes are; the faults of the metadata."""
        if ctx.record_owner is not None:
            ctx.record_owner(new, old)
        return metadata.validate_metadata_update(new.metadata, old.metadata)

    def _marked(self, ctx: WriteContext, old: Any, request: DeleteRequest) -> Any:
        """A copy of the object, marked as a delete of it leaves it. Raises BadRequest for a stamp that is no time."""
        grace = self.strategy.grace_period_s(ctx, old, request.grace_period_s)
        new = copy_of(old)
        deletion.apply_propagation(new.metadata, request.propagation)
        deletion.mark_deleted(new.metadata, grace, ctx.now)
        self.strategy.prepare_for_delete(ctx, new)
        return new

    # -- keys and bytes

    def key(self, namespace: str, name: str) -> str:
        """Key of an object in the store. Raises BadRequest for a namespaced object without namespace."""
        self._check_namespace(namespace)
        return f"{self._prefix}{namespace}/{name}" if self.resource.namespaced else f"{self._prefix}{name}"

    def _check_namespace(self, namespace: str) -> None:
        if self.resource.namespaced and not namespace:
            raise BadRequest(f"an empty namespace may not be set: {self.resource.plural} are namespaced")

    def _cached(self, namespace: str, name: str) -> Any | None:
        """A private copy of the cached object."""
        found = self.cacher.get_nowait(namespace, name)
        return None if found is None else self._message.FromString(found.raw)

    async def _read(self, key: str) -> Any | None:
        """What the store has now."""
        with storage_errors():
            return self._decode(await self._store.get(key))

    def _decode(self, found: KeyValue | None) -> Any | None:
        if found is None:
            return None
        obj: Any = self._message.FromString(proto_codec.decode_envelope(found.value)[2])
        obj.metadata.resourceVersion = str(found.mod_revision)
        return obj

    def _encode(self, obj: Any) -> bytes:
        """The bytes to store: the version is the store's own revision and is not among them."""
        version = obj.metadata.resourceVersion
        obj.metadata.ClearField("resourceVersion")
        raw = obj.SerializeToString(deterministic=True)
        if version:
            obj.metadata.resourceVersion = version
        return proto_codec.encode_envelope(self._version_of(obj), self.resource.kind, raw)

    def _version_of(self, _obj: Any) -> str:
        """The apiVersion that the object's bytes are in."""
        return self._api_version

    async def _upgraded(self, obj: Any) -> Any:
        """The object in the version stored now; asked only where `keeps_versions` is set."""
        return obj

    async def _is_outdated(self, _key: str) -> bool:
        """Whether what is stored is in another version; asked only where `keeps_versions` is set."""
        return False

    # -- refusals and warnings

    def _warn(self, ctx: WriteContext, obj: Any) -> None:
        if self.strategy.warnings is not None and not ctx.trusted:
            for text in self.strategy.warnings(obj):
                ctx.warn(text)

    def _refuse(self, name: str, errors: Sequence[FieldError]) -> None:
        if errors:
            # The schema and a kind's own rules may find the same fault; it is told once.
            told = list({(error.path, error.body): error for error in errors}.values())
            raise Invalid.of(self.resource.kind, name, told, group=self.resource.group)

    def _not_found(self, name: str) -> NotFound:
        return NotFound.of(self.resource.plural, name, group=self.resource.group)

    def _already_exists(self, name: str) -> AlreadyExists:
        return AlreadyExists.of(self.resource.plural, name, group=self.resource.group)

    def _conflict(self, name: str, why: str = Conflict.MODIFIED) -> Conflict:
        return Conflict.of(self.resource.plural, name, group=self.resource.group, why=why)


def copy_of(obj: Message) -> Any:
    """A deep copy that may be changed."""
    clone = type(obj)()
    clone.CopyFrom(obj)
    return clone
