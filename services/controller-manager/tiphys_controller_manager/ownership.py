"""Who belongs to whom: which objects an owner keeps, adopts and releases, and the patches that say so.

Source: kubernetes pkg/controller/controller_ref_manager.go, ClaimObject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from google.protobuf.message import Message

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import Invalid, NotFound
from tiphys_apimachinery.labels import Selector, SelectorError, from_label_selector
from tiphys_apimachinery.meta import get_controller_of, is_being_deleted, join_key, namespaced_name
from tiphys_client.client import Client
from tiphys_client.indexer import NAMESPACE_INDEX
from tiphys_client.informer import Informer


class Ownable(Protocol):
    """What is asked of an object that may be owned."""

    @property
    def namespace(self) -> str:
        """Its namespace."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def uid(self) -> str:
        """Its uid."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""

    @property
    def controller_uid(self) -> str:
        """The uid of the managing owner, empty for an orphan."""

    @property
    def is_deleting(self) -> bool:
        """Whether its deletion was asked for."""


OwnableT = TypeVar("OwnableT", bound=Ownable)


@dataclass(frozen=True, slots=True)
class Owned(Generic[OwnableT]):
    """The objects that an owner has, should adopt and should release."""

    kept: tuple[OwnableT, ...]
    adopt: tuple[OwnableT, ...]
    release: tuple[OwnableT, ...]


@dataclass(frozen=True, slots=True)
class MessageView:
    """An API message as something that may be owned."""

    obj: Any

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.obj.metadata.namespace)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.obj.metadata.name)

    @property
    def uid(self) -> str:
        """Its uid."""
        return str(self.obj.metadata.uid)

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return cast(Mapping[str, str], self.obj.metadata.labels)

    @property
    def controller_uid(self) -> str:
        """The uid of the managing owner, empty for an orphan."""
        owner = get_controller_of(self.obj)
        return owner.uid if owner is not None else ""

    @property
    def is_deleting(self) -> bool:
        """Whether its deletion was asked for."""
        return is_being_deleted(self.obj)


def sort_out(owner: Any, selector: Selector, candidates: Sequence[OwnableT]) -> Owned[OwnableT]:
    """What the owner keeps, adopts and releases of the candidates, all of its namespace.

    An owner that is being deleted neither adopts nor releases.
    """
    kept, adopt, release = [], [], []
    owner_ends, uid = is_being_deleted(owner), owner.metadata.uid
    selects = matcher(selector)
    for item in candidates:
        manager = item.controller_uid
        if manager and manager != uid:
            continue
        matches = selects(item.labels)
        if manager:
            if matches:
                kept.append(item)
            elif not owner_ends:
                release.append(item)
        elif matches and not owner_ends and not item.is_deleting:
            adopt.append(item)
    return Owned(tuple(kept), tuple(adopt), tuple(release))


def matcher(selector: Selector) -> Callable[[Mapping[str, str]], bool]:
    """Tells of many objects whether a selector means them: pods of one template share their labels."""
    known: dict[int, tuple[Mapping[str, str], bool]] = {}

    def matches(labels: Mapping[str, str]) -> bool:
        # The labels are kept with the answer: so no others can come to have their identity.
        found = known.get(id(labels))
        if found is None:
            found = known[id(labels)] = (labels, selector.matches(labels))
        return found[1]

    return matches


def owner_keys(api_version: str, kind: str, old: Any, new: Any) -> dict[str, None]:
    """Keys of the owners of that kind which manage an object, before and after its change; in order, each once."""
    keys: dict[str, None] = {}
    for obj in (new, old):
        owner = get_controller_of(obj) if obj is not None else None
        if owner is not None and owner.kind == kind and owner.apiVersion == api_version:
            keys[join_key(obj.metadata.namespace, owner.name)] = None
    return keys


def selecting_keys(owners: Informer[Any, Any], old: Any, new: Any) -> dict[str, None]:
    """Keys of the owners that may adopt an object, since it came to be an orphan, or changed its labels as one."""
    if new is None or get_controller_of(new) is not None or is_being_deleted(new):
        return {}
    if old is not None and old.metadata.labels == new.metadata.labels and get_controller_of(old) is None:
        return {}
    return {
        namespaced_name(owner): None
        for owner in owners.by_index(NAMESPACE_INDEX, new.metadata.namespace)
        if _selects(owner, new)
    }


def selector_of(owner: Any) -> Selector:
    """The selector of an owner's spec, be it a LabelSelector or, in the oldest kinds, a map. Raises SelectorError."""
    selector = owner.spec.selector
    if isinstance(selector, meta_pb2.LabelSelector):
        return from_label_selector(selector)
    return Selector.from_set(dict(selector))


def _selects(owner: Any, obj: Any) -> bool:
    try:
        selector = selector_of(owner)
    except SelectorError:
        return False
    return bool(selector) and selector.matches(obj.metadata.labels)


class Adopter:
    """Carries adoption and release out for objects of one class."""

    def __init__(self, client: Client, cls: type[Message], *, finalizers: Sequence[str] = ()) -> None:
        """finalizers come with adoption and go with release."""
        self._client = client
        self._cls = cls
        self._finalizers = list(finalizers)

    async def settle(
        self,
        owner: Any,
        reference: meta_pb2.OwnerReference,
        owned: Owned[OwnableT],
        wrote: Callable[[Message], None],
    ) -> tuple[OwnableT, ...]:
        """Adopt and release; returns what the owner has then. wrote hears of each object as stored.

        Raises OwnerChanged when the owner is not what the caller's view says, and errors of the API.
        """
        kept = list(owned.kept)
        if owned.adopt:
            await self._check_owner(owner)
        for item in owned.adopt:
            if await self._patch(item, self._adoption(reference, item.uid), wrote):
                kept.append(item)
        for item in owned.release:
            await self._patch(item, self._release(reference.uid, item.uid), wrote)
        return tuple(kept)

    async def _check_owner(self, owner: Any) -> None:
        """A view may be old: adopting for an owner that is going would make its orphans its own again."""
        fresh: Any = await self._client.get(type(owner), owner.metadata.name, owner.metadata.namespace)
        if fresh.metadata.uid != owner.metadata.uid:
            raise OwnerChanged(f"{owner.metadata.name} is another object now: uid {fresh.metadata.uid}")
        if is_being_deleted(fresh):
            raise OwnerChanged(f"{owner.metadata.name} has just been deleted")

    async def _patch(self, item: Ownable, patch: dict[str, Any], wrote: Callable[[Message], None]) -> bool:
        try:
            stored = await self._client.patch(self._cls, item.name, item.namespace, patch, type="strategic")
        except (NotFound, Invalid):
            # Gone, or another object of that name: nothing to adopt or release.
            return False
        wrote(stored)
        return True

    def _adoption(self, reference: meta_pb2.OwnerReference, uid: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {"ownerReferences": [to_json(reference)], "uid": uid}
        if self._finalizers:
            metadata["finalizers"] = self._finalizers
        return {"metadata": metadata}

    def _release(self, owner_uid: str, uid: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": uid}
        if self._finalizers:
            metadata["$deleteFromPrimitiveList/finalizers"] = self._finalizers
        return {"metadata": metadata}


class OwnerChanged(Exception):
    """The owner on the server is not the one in the view; a later round will see it."""
