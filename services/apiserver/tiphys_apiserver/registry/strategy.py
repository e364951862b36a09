"""The rules of one resource, as the generic store calls them.

A write runs through these steps, and a kind overrides only those it has rules for:

    create   apply_defaults > (mutating admission) > prepare_for_create > validate
             > (validating admission) > begin_create > store > finish(True)
    update   apply_defaults > (mutating admission) > prepare_for_update > validate_update
             > (validating admission) > begin_update > store > finish(True)
    status   the same with apply_status_defaults, prepare_for_status_update and validate_status_update
    delete   grace_period_s, prepare_for_delete > (validating admission) > store > after_delete

A step may run again when another writer came first, each time on fresh copies. finish(False) is
called when the store refused. The store itself does what every kind has in common, before the
strategy's own step: names, uid, creationTimestamp, generation, managedFields, finalizers,
deletionTimestamp, ownerReferences (registry/metadata.py), and the preconditions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, Protocol

from google.protobuf.message import Message

from tiphys_apimachinery import defaults, validation
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.authentication.interface import SERVER_USER, UserInfo
from tiphys_apiserver.cel.aside import Aside
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.registry.selectable import FieldReader
from tiphys_apiserver.registry.warnings import WARNINGS, Warn
from tiphys_apiserver.storage.interface import Store
from tiphys_component.clock import Clock

# Ends what a begin_ step opened: True when the write was stored, False when it was not.
# It must not raise for reasons of the request; a release that fails is retried by a repair loop.
Finish = Callable[[bool], Awaitable[None]]

BACKGROUND = "Background"
FOREGROUND = "Foreground"
ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True)
class Environment:
    """What strategies may hold on to: given once, at construction.

    new_uid and rng are injected so that tests and simulations repeat.
    """

    clock: Clock
    new_uid: Callable[[], str]
    rng: Random
    objects: ObjectAccess
    service_cluster_ip_range: str = "10.96.0.0/12"
    service_node_port_range: tuple[int, int] = (30000, 32767)
    # The store where other servers may write to it too; None where this server is alone.
    shared_store: Store | None = None
    # Where rules that are written as expressions are asked.
    aside: Aside = field(default_factory=Aside)


class Creates(Protocol):
    """Takes new keys: Store.create."""

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Write a key that is not there; the revision of the write. Raises KeyExists."""
        ...


class NewObjects(Protocol):
    """Reads the objects in documents of JSON, where it pays to remember what was read before."""

    def read(self, document: dict[str, Any], sink: json_codec.FieldSink | None) -> tuple[Any, bool]:
        """The object, and whether its defaults are filled in. Raises BadRequest."""
        ...


@dataclass(slots=True)
class WriteContext:
    """One write: who, when and how. namespace is that of the path; now is the one stamp of the write."""

    now: datetime
    user: UserInfo = SERVER_USER
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    dry_run: bool = False
    field_manager: str = ""
    # Brings new's managedFields up to date: (new, old), old None for a new object. None leaves them as they are stored.
    record_owner: Callable[[Any, Any], None] | None = None
    # The change is the server's own (a binding): the strategy does not judge it, generation stays.
    trusted: bool = False
    # Where a new object is written; None is the store. A batch that is stored as a whole has one for all its objects.
    creates: Creates | None = None
    warnings: list[str] = field(default_factory=list)
    # A new object comes with its defaults.
    is_filled: bool = False

    def warn(self, text: str) -> None:
        """Tell the caller something in a Warning header; the write goes on."""
        if text not in self.warnings:
            self.warnings.append(text)


class Strategy:
    """The rules that serve every kind; subclass it in registry/<group>/<kind>.py.

    Messages handed to a step belong to it for the time of the step: obj and new may be changed in
    the prepare_ and begin_ steps, old never.
    """

    # An update without resourceVersion replaces whatever is stored.
    allow_unconditional_update = True
    # Whether what it validates may take long: it is then asked through the environment's Aside.
    may_take_long = False
    # Whether admission plug-ins handle a new object does not depend on what is in it: one answer does for a batch.
    alike_to_admission = False
    # PUT of an absent name creates it (leases, endpoints, events and the like).
    allow_create_on_update = False
    # Propagation where the request names none; None leaves it to the finalizers on the object.
    default_propagation: str | None = BACKGROUND

    def __init__(self, resource: ResourceInfo, environment: Environment) -> None:
        self.resource = resource
        self.environment = environment
        self._fields = FieldReader(resource)
        # Reads new objects where many are alike; None for all kinds but pods.
        self.known_specs: NewObjects | None = None
        # What writes of the kind are warned of; None for most kinds.
        self.warnings: Warn | None = WARNINGS.get((resource.group, resource.plural))

    async def start(self) -> None:
        """Rebuild what is derived from stored objects (allocations); awaited before serving.

        The caches are filled by then.
        """

    # -- naming and selecting

    def validate_name(self, name: str) -> list[str]:
        """What is wrong with a new object's name, in words; most kinds take a DNS-1123 subdomain."""
        return validation.is_dns1123_subdomain(name)

    def selectable_fields(self, obj: Message) -> Mapping[str, str]:
        """Values that a field selector may ask for; the schema's selectable_fields by default."""
        return self._fields.read(obj)

    def ttl_s(self, obj: Message) -> int:
        """Life of the stored object in seconds; 0 is for ever. Events live an hour."""
        return 0

    # -- create

    def apply_defaults(self, obj: Message) -> None:
        """Fill what the caller left open: the schema's defaults, then the kind's own."""
        defaults.apply_defaults(obj)

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """Drop or set what a caller may not choose; status is emptied where the kind has /status."""
        if self.has_status:
            obj.ClearField("status")

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Every fault of a new object; the schema's rules by default (subclasses add to them)."""
        return validation.validate_fields(obj)

    async def begin_create(self, ctx: WriteContext, obj: Message) -> Finish | None:
        """Reserve what the object needs (addresses, ports) and write it into obj.

        With ctx.dry_run nothing may stay reserved. Raises Invalid when there is nothing left.
        """
        return None

    # -- update

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Put back what this update may not change; status is kept where the kind has /status."""
        if self.has_status:
            copy_field(new, old, "status")

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Every fault of a changed object: the schema's rules and its immutable fields."""
        return validation.validate_fields(new) + validation.validate_immutable(new, old)

    async def begin_update(self, ctx: WriteContext, new: Any, old: Any) -> Finish | None:
        """Reserve what is new; finish(True) releases what the old object no longer needs."""
        return None

    # -- status and other subresources that are the object itself

    def apply_status_defaults(self, obj: Any) -> None:
        """Fill what the caller of /status left open. A kind whose rest needs no look may fill the status alone:
        prepare_for_status_update puts the rest back as it is stored."""
        self.apply_defaults(obj)

    def prepare_for_status_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Keep everything but status and what metadata allows (labels, annotations, finalizers stay old)."""
        for member in new.DESCRIPTOR.fields:
            if member.name not in ("metadata", "status"):
                copy_field(new, old, member.name)

    def validate_status_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Every fault of a new status; the schema's rules by default."""
        return validation.validate_status(new)

    def prepare_for_subresource_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """The same for ctx.subresource such as ephemeralcontainers, resize, approval, finalize."""

    def validate_subresource_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Every fault of such an update."""
        return self.validate_update(ctx, new, old)

    # -- delete

    def grace_period_s(self, ctx: WriteContext, obj: Any, requested: int | None) -> int:
        """Seconds the object stays with a deletionTimestamp; 0 removes it at once.

        requested is gracePeriodSeconds of the DeleteOptions. Pods answer with their own.
        """
        return 0

    def prepare_for_delete(self, ctx: WriteContext, obj: Any) -> None:
        """Change an object that stays for a while with its deletionTimestamp (a namespace's phase)."""

    def holds_object(self, obj: Any) -> bool:
        """Whether a deleted object must stay for a reason besides metadata.finalizers."""
        return False

    async def after_delete(self, ctx: WriteContext, obj: Any) -> None:
        """Release what the object held; called once, after it is gone from the store."""

    # -- writing out

    def dumps(self, obj: Message) -> bytes:
        """The object as JSON text. A kind whose objects are much alike may remember parts of it."""
        return json_codec.dumps(obj)

    # -- facts

    @property
    def has_status(self) -> bool:
        """Whether status is written by its own subresource only."""
        return "status" in self.resource.subresources


def copy_field(target: Any, source: Any, name: str) -> None:
    """Make one field of target equal to source's, absence included."""
    target.ClearField(name)
    member = source.DESCRIPTOR.fields_by_name.get(name)
    if member is None:
        return
    if member.is_repeated:
        getattr(target, name).MergeFrom(getattr(source, name))
    elif not source.HasField(name):
        return
    elif member.message_type is not None:
        getattr(target, name).CopyFrom(getattr(source, name))
    else:
        setattr(target, name, getattr(source, name))
