"""Who depends on whom, over all resources, kept from what the informers show; no I/O.

Each change returns the uids that must be looked at. Objects that are only known as somebody's owner are in the graph
too, unobserved, until an informer shows them or the server says that they do not exist.

Source: kubernetes pkg/controller/garbagecollector/graph_builder.go and graph.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

FOREGROUND_FINALIZER: Final = "foregroundDeletion"
ORPHAN_FINALIZER: Final = "orphan"


@dataclass(frozen=True, slots=True)
class Identity:
    """One object. The namespace of an owner that was only heard of is that of its dependent."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class OwnerRef:
    """One owner as a dependent names it."""

    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the graph wants of an object."""

    identity: Identity
    owners: tuple[OwnerRef, ...] = ()
    is_deleting: bool = False
    finalizers: tuple[str, ...] = ()

    @property
    def is_foreground(self) -> bool:
        """Whether it waits for the deletion of its dependents."""
        return self.is_deleting and FOREGROUND_FINALIZER in self.finalizers

    @property
    def is_orphaning(self) -> bool:
        """Whether it waits for its dependents to be released."""
        return self.is_deleting and ORPHAN_FINALIZER in self.finalizers


@dataclass(slots=True)
class Node:
    """One object in the graph, and the uids of those that name it as owner."""

    facts: Facts
    is_observed: bool
    dependents: dict[str, None] = field(default_factory=dict)


class Graph:
    """All objects by uid."""

    def __init__(self) -> None:
        # Every uid in a node's dependents is a node that names this one among its owners, and the reverse.
        self._nodes: dict[str, Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, uid: str) -> Node | None:
        """The node of an object; not to be changed."""
        return self._nodes.get(uid)

    def dependents(self, uid: str) -> list[Facts]:
        """The objects that name this one as owner."""
        node = self._nodes.get(uid)
        return [self._nodes[item].facts for item in node.dependents] if node is not None else []

    def blocking(self, uid: str) -> list[Facts]:
        """The dependents that must be gone before this one may go."""
        return [
            item for item in self.dependents(uid) if any(owner.uid == uid and owner.blocks for owner in item.owners)
        ]

    def put(self, facts: Facts) -> list[str]:
        """An object is there, or is different; the uids to look at."""
        uid = facts.identity.uid
        node = self._nodes.get(uid)
        before = node.facts if node is not None and node.is_observed else None
        todo: dict[str, None] = {}
        if node is None:
            node = self._nodes[uid] = Node(facts, is_observed=True)
        elif not node.is_observed:
            if node.facts.identity != facts.identity:
                # Dependents named it wrongly; whether such a reference counts is decided by asking the server.
                todo.update(node.dependents)
            node.facts, node.is_observed = facts, True
        else:
            node.facts = facts
        todo.update(dict.fromkeys(self._relink(facts, before.owners if before is not None else ())))
        if facts.is_orphaning and not (before is not None and before.is_orphaning):
            todo[uid] = None
        if facts.is_foreground and not (before is not None and before.is_foreground):
            todo.update(node.dependents)
            todo[uid] = None
        return list(todo)

    def remove(self, uid: str) -> list[str]:
        """An object is gone; the uids to look at: its dependents, and owners that waited for it."""
        node = self._nodes.get(uid)
        if node is None:
            return []
        todo = dict(node.dependents)
        for owner in node.facts.owners:
            todo.update(dict.fromkeys(self._unlink(uid, owner.uid)))
        if node.dependents:
            # Kept unobserved for as long as somebody names it.
            identity = node.facts.identity
            self._nodes[uid] = Node(Facts(identity), is_observed=False, dependents=node.dependents)
        else:
            del self._nodes[uid]
        todo.pop(uid, None)
        return list(todo)

    def forget_unobserved(self, uid: str) -> list[str]:
        """The server says that an owner does not exist; its dependents are to be looked at."""
        node = self._nodes.get(uid)
        return list(node.dependents) if node is not None and not node.is_observed else []

    def check(self) -> None:
        """Raise AssertionError if a link has only one end; for tests."""
        for uid, node in self._nodes.items():
            for item in node.dependents:
                assert any(owner.uid == uid for owner in self._nodes[item].facts.owners), (uid, item)
            for owner in node.facts.owners:
                assert uid in self._nodes[owner.uid].dependents, (owner.uid, uid)
            assert node.is_observed or node.dependents, uid

    def _relink(self, facts: Facts, before: Iterable[OwnerRef]) -> list[str]:
        """Make the owners' lists true; the uids to look at."""
        uid = facts.identity.uid
        was = {owner.uid: owner for owner in before}
        now = {owner.uid: owner for owner in facts.owners}
        todo: list[str] = []
        for owner_uid, old in was.items():
            new = now.get(owner_uid)
            if new is None:
                todo += self._unlink(uid, owner_uid)
            elif old.blocks and not new.blocks:
                todo += self._waiting(owner_uid)
        for owner_uid, owner in now.items():
            if owner_uid not in was:
                todo += self._link(facts, owner)
        return todo

    def _link(self, facts: Facts, owner: OwnerRef) -> list[str]:
        node = self._nodes.get(owner.uid)
        uid = facts.identity.uid
        if node is None:
            identity = Identity(owner.api_version, owner.kind, facts.identity.namespace, owner.name, owner.uid)
            self._nodes[owner.uid] = Node(Facts(identity), is_observed=False, dependents={uid: None})
            # Not there, or not seen yet: the server knows.
            return [owner.uid]
        node.dependents[uid] = None
        if not node.is_observed:
            return [owner.uid]
        found = node.facts.identity
        if (found.api_version, found.kind, found.name) != (owner.api_version, owner.kind, owner.name):
            return [uid]
        # Named by a dependent that came after its deletion had begun.
        return [uid] if node.facts.is_foreground else []

    def _unlink(self, uid: str, owner_uid: str) -> list[str]:
        node = self._nodes.get(owner_uid)
        if node is None:
            return []
        node.dependents.pop(uid, None)
        if not node.is_observed and not node.dependents:
            del self._nodes[owner_uid]
            return []
        return self._waiting(owner_uid)

    def _waiting(self, owner_uid: str) -> list[str]:
        node = self._nodes.get(owner_uid)
        return [owner_uid] if node is not None and node.facts.is_foreground else []


def facts_of(obj: Any, api_version: str, kind: str) -> Facts:
    """The facts of an API message."""
    metadata = obj.metadata
    return Facts(
        Identity(api_version, kind, metadata.namespace, metadata.name, metadata.uid),
        owner_refs(metadata),
        metadata.HasField("deletionTimestamp"),
        tuple(metadata.finalizers),
    )


def owner_refs(metadata: Any) -> tuple[OwnerRef, ...]:
    """The owners in an object's metadata, each uid once."""
    found = {
        owner.uid: OwnerRef(owner.apiVersion, owner.kind, owner.name, owner.uid, owner.blockOwnerDeletion)
        for owner in metadata.ownerReferences
    }
    return tuple(found.values())
