"""What a reconcile function works with: it says what there shall be, and this makes it so.

Everything is level-triggered and may be done twice. What was applied in an earlier round and is applied no more is
deleted; what has not changed is not written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import orjson

from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import Conflict, NotFound
from tiphys_apimachinery.meta import get_controller_of, is_being_deleted
from tiphys_client.client import Client
from tiphys_client.controller import Terminal
from tiphys_client.resource_facts import facts_of

T = TypeVar("T")
# The children of an object, by its uid.
OWNER_INDEX = "owner"


class Copies(Protocol):
    """Local copies of the objects of one class."""

    def get(self, key: str) -> Any:
        """One object by namespace/name, or by name."""

    def list(self) -> list[Any]:
        """All of them."""

    def by_index(self, index: str, key: str) -> Any:
        """Those under one key of an index."""


class Events(Protocol):
    """Where events go."""

    def event(self, obj: Any, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tells of something that happened to obj; never waits."""


def key_of(obj: Any) -> str:
    """namespace/name, or the name of what is in no namespace."""
    meta = obj.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else str(meta.name)


def owner_uids(obj: Any) -> Iterable[str]:
    """Index function: the uid of an object's controller."""
    owner = get_controller_of(obj)
    return (owner.uid,) if owner is not None else ()


@dataclass(slots=True)
class Desk:
    """What all rounds of one duty share. copies are by class; applied is what was written last, by class and key."""

    name: str
    client: Client
    events: Events
    copies: Mapping[Any, Copies]
    applied: dict[tuple[Any, str], tuple[bytes, str]] = field(default_factory=dict)

    def forget(self, cls: Any, key: str) -> None:
        """The object is gone."""
        self.applied.pop((cls, key), None)


class Work:
    """One round for one object."""

    def __init__(self, desk: Desk, parent: Any, owns: Iterable[Any]) -> None:
        self._desk = desk
        self._parent = parent
        self._facts = facts_of(type(parent))
        self._owns = {facts_of(cls).kind: cls for cls in owns}
        self._kept: set[tuple[Any, str]] = set()
        self._status: dict[str, Any] | None = None

    @property
    def client(self) -> Client:
        """For calls that nothing here makes. What they change must be found again after a crash."""
        return self._desk.client

    async def apply(self, child: Any) -> Any:
        """Have a child be as it is given, message or plain values; the stored object, its status included.

        Name and namespace are the parent's unless they are given; the parent becomes its controller, and what it
        says is ours by server-side apply. Raises Conflict while another object controls it, and errors of the API.
        """
        cls, document = self._read(child)
        meta = document["metadata"]
        key = f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]
        self._kept.add((cls, key))
        known = self._desk.copies[cls].get(key)
        owner = get_controller_of(known) if known is not None else None
        if owner is not None and owner.uid != self._parent.metadata.uid:
            raise Conflict(f"{document['kind']} {key} is controlled by {owner.kind} {owner.name}")
        digest = hashlib.blake2b(orjson.dumps(document, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
        if known is not None and self._desk.applied.get((cls, key)) == (digest, known.metadata.resourceVersion):
            return known
        name, place, manager = meta["name"], meta.get("namespace", ""), self._desk.name
        stored = await self._desk.client.patch(
            cls, name, place, document, type="apply", field_manager=manager, force=True
        )
        self._desk.applied[cls, key] = (digest, stored.metadata.resourceVersion)
        return stored

    def owned(self, cls: type[T]) -> list[T]:
        """The children of a kind, as they were last heard of."""
        return list(self._desk.copies[cls].by_index(OWNER_INDEX, self._parent.metadata.uid))

    def get(self, cls: type[T], name: str, namespace: str | None = None) -> T | None:
        """An object of a kind that is owned or watched, as it was last heard of."""
        place = self._parent.metadata.namespace if namespace is None else namespace
        found: T | None = self._desk.copies[cls].get(f"{place}/{name}" if place else name)
        return found

    def list(self, cls: type[T]) -> list[T]:
        """All objects of a kind that is owned or watched, as they were last heard of."""
        return self._desk.copies[cls].list()

    def status(self, **members: Any) -> None:
        """What the object's status shall say when the round ends well; observedGeneration is added."""
        self._status = {**(self._status or {}), **members}

    def event(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell users of something; reason is one CamelCase word."""
        self._desk.events.event(self._parent, "Warning" if warning else "Normal", reason, message)

    async def finish(self) -> None:
        """End the round: what was not applied in it goes, and the status is written. Raises errors of the API."""
        for cls in self._owns.values():
            for child in self.owned(cls):
                key, meta = key_of(child), child.metadata
                if (cls, key) not in self._kept and not is_being_deleted(child):
                    await self._delete(cls, meta)
                    self._desk.forget(cls, key)
        if self._status is not None:
            await self._write_status(self._status)

    async def _delete(self, cls: Any, meta: Any) -> None:
        try:
            await self._desk.client.delete(
                cls, meta.name, meta.namespace, preconditions_uid=meta.uid, propagation="Background", absent_ok=True
            )
        except Conflict:
            return  # another one of its name has come, and tells of itself

    async def _write_status(self, members: Mapping[str, Any]) -> None:
        parent, facts = self._parent, self._facts
        wanted = {**members, "observedGeneration": parent.metadata.generation}
        if to_json(parent, with_type_meta=False).get("status") == wanted:
            return
        document = {
            "apiVersion": facts.api_version,
            "kind": facts.kind,
            "metadata": {"name": parent.metadata.name, "namespace": parent.metadata.namespace},
            "status": wanted,
        }
        try:
            await self._desk.client.patch(
                type(parent),
                parent.metadata.name,
                parent.metadata.namespace,
                document,
                type="apply",
                subresource="status",
                field_manager=f"{self._desk.name}-status",
                force=True,
            )
        except NotFound:
            return  # it went meanwhile, and its status with it

    def _read(self, child: Any) -> tuple[Any, dict[str, Any]]:
        """The class of a child, and what is to be applied of it."""
        document = dict(child) if isinstance(child, Mapping) else to_json(child)
        kind = document.get("kind", "")
        cls = self._owns.get(kind)
        if cls is None:
            raise Terminal(f"{self._facts.kind} {key_of(self._parent)} does not own objects of kind {kind!r}")
        facts, mine = facts_of(cls), self._parent.metadata
        document["apiVersion"] = facts.api_version
        document.pop("status", None)
        meta = {name: value for name, value in (document.get("metadata") or {}).items() if value is not None}
        meta.setdefault("name", mine.name)
        if facts.namespaced:
            meta.setdefault("namespace", mine.namespace)
        meta["ownerReferences"] = [
            {
                "apiVersion": self._facts.api_version,
                "kind": self._facts.kind,
                "name": mine.name,
                "uid": mine.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        document["metadata"] = meta
        return cls, document
