"""Objects by key, held as bytes, with indexes and a projection made once for each version.

At rest a pod takes its serialized size and some 300 bytes; a message is made when it is asked for and not kept.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from google.protobuf.message import Message

from tiphys_apimachinery.meta import join_key

MessageT = TypeVar("MessageT", bound=Message)
ProjectionT = TypeVar("ProjectionT")

IndexFunc = Callable[[MessageT], Iterable[str]]
"""The index keys of an object; must not depend on anything else."""

NAMESPACE_INDEX = "namespace"


def by_namespace(obj: Message) -> Iterable[str]:
    """Index function: the namespace."""
    return (cast(Any, obj).metadata.namespace,)


def by_owner_uid(obj: Message) -> Iterable[str]:
    """Index function: the uids of all owners."""
    return [owner.uid for owner in cast(Any, obj).metadata.ownerReferences]


def by_controller_uid(obj: Message) -> Iterable[str]:
    """Index function: the uid of the managing owner."""
    return [owner.uid for owner in cast(Any, obj).metadata.ownerReferences if owner.controller]


class Entry(Generic[MessageT, ProjectionT]):
    """One object at rest. Never changed: a new version is a new entry."""

    __slots__ = ("index_keys", "key", "projection", "raw", "resource_version", "uid")

    def __init__(
        self,
        key: str,
        raw: bytes,
        resource_version: str,
        uid: str,
        *,
        projection: ProjectionT | None,
        index_keys: tuple[tuple[str, ...], ...],
    ) -> None:
        self.key = key
        self.raw = raw
        self.resource_version = resource_version
        self.uid = uid
        self.projection = projection
        self.index_keys = index_keys


class Indexer(Generic[MessageT, ProjectionT]):
    """The store of an informer. One writer; readers see each object whole and must not change what they get."""

    def __init__(
        self,
        cls: type[MessageT],
        *,
        indexes: Mapping[str, IndexFunc[MessageT]] | None = None,
        projection: Callable[[MessageT], ProjectionT] | None = None,
        renewal: Callable[[MessageT, ProjectionT], ProjectionT] | None = None,
    ) -> None:
        """renewal makes the projection of a newer version with the help of that of the one before."""
        self._cls = cls
        self._projection = projection
        self._renewal = renewal
        self._functions: dict[str, IndexFunc[MessageT]] = dict(indexes or {})
        self._entries: dict[str, Entry[MessageT, ProjectionT]] = {}
        # For each index, the keys of the objects under each index key, in the order they came; no empty dicts are kept.
        self._indexes: dict[str, dict[str, dict[str, None]]] = {name: {} for name in self._functions}

    def add_index(self, name: str, function: IndexFunc[MessageT]) -> None:
        """Add an index before the first object; raises ValueError if there are objects or the name is taken."""
        if self._entries:
            raise ValueError(f"index {name}: objects are already there")
        if name in self._functions:
            raise ValueError(f"index {name} exists")
        self._functions[name] = function
        self._indexes[name] = {}

    def has_index(self, name: str) -> bool:
        """Whether there is an index of that name."""
        return name in self._functions

    def make(self, raw: bytes, obj: MessageT) -> Entry[MessageT, ProjectionT]:
        """The entry for an object, with its projection and index keys; it is not stored."""
        metadata = cast(Any, obj).metadata
        key, uid = join_key(metadata.namespace, metadata.name), metadata.uid
        return Entry(
            key,
            raw,
            metadata.resourceVersion,
            uid,
            projection=self._project(key, uid, obj) if self._projection is not None else None,
            index_keys=tuple(tuple(function(obj)) for function in self._functions.values()),
        )

    def _project(self, key: str, uid: str, obj: MessageT) -> ProjectionT | None:
        if self._renewal is not None:
            known = self._entries.get(key)
            if known is not None and known.uid == uid and known.projection is not None:
                return self._renewal(obj, known.projection)
        return self._projection(obj) if self._projection is not None else None

    def put(self, entry: Entry[MessageT, ProjectionT]) -> Entry[MessageT, ProjectionT] | None:
        """Store an entry; returns the one it replaces."""
        old = self._entries.get(entry.key)
        self._entries[entry.key] = entry
        if old is None or old.index_keys != entry.index_keys:
            if old is not None:
                self._unindex(old)
            for name, keys in zip(self._functions, entry.index_keys, strict=True):
                index = self._indexes[name]
                for key in keys:
                    index.setdefault(key, {})[entry.key] = None
        return old

    def remove(self, key: str) -> Entry[MessageT, ProjectionT] | None:
        """Drop an object; returns it, None if it was not there."""
        old = self._entries.pop(key, None)
        if old is not None:
            self._unindex(old)
        return old

    def _unindex(self, entry: Entry[MessageT, ProjectionT]) -> None:
        for name, keys in zip(self._functions, entry.index_keys, strict=True):
            index = self._indexes[name]
            for key in keys:
                members = index.get(key)
                if members is not None:
                    members.pop(entry.key, None)
                    if not members:
                        del index[key]

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def keys(self) -> builtins.list[str]:
        """The keys of all objects."""
        return list(self._entries)

    def entry(self, key: str) -> Entry[MessageT, ProjectionT] | None:
        """The object at rest."""
        return self._entries.get(key)

    def get(self, key: str) -> MessageT | None:
        """The object, freshly parsed."""
        entry = self._entries.get(key)
        return None if entry is None else self._cls.FromString(entry.raw)

    def list(self) -> builtins.list[MessageT]:
        """All objects, freshly parsed; ask for projections where there are thousands."""
        return [self._cls.FromString(entry.raw) for entry in self._entries.values()]

    def projection(self, key: str) -> ProjectionT | None:
        """The projection of one object."""
        entry = self._entries.get(key)
        return None if entry is None else entry.projection

    def projections(self) -> Iterator[tuple[str, ProjectionT]]:
        """Key and projection of every object; the store must not change meanwhile."""
        for key, entry in self._entries.items():
            yield key, cast(ProjectionT, entry.projection)

    def index_keys(self, index: str) -> builtins.list[str]:
        """The keys under which an index has objects; raises KeyError if there is no such index."""
        return list(self._indexes[index])

    def keys_by_index(self, index: str, key: str) -> builtins.list[str]:
        """The keys of the objects under one key of an index; raises KeyError if there is no such index."""
        return list(self._indexes[index].get(key, ()))

    def by_index(self, index: str, key: str) -> builtins.list[MessageT]:
        """The objects under one key of an index, freshly parsed; raises KeyError if there is no such index."""
        return [self._cls.FromString(self._entries[name].raw) for name in self._indexes[index].get(key, ())]

    def projections_by_index(self, index: str, key: str) -> builtins.list[tuple[str, ProjectionT]]:
        """Key and projection of the objects under one key of an index; raises KeyError if there is no such index."""
        members = self._indexes[index].get(key, ())
        return [(name, cast(ProjectionT, self._entries[name].projection)) for name in members]
