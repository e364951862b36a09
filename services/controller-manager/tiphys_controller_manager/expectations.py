"""What a controller has asked of the API and not yet seen come back: it plans nothing new before it has.

Every object of one kind shares the server's one counter of versions, and a watch delivers in order. So a view that has
reached the version of the last write has seen that write, and creations need no counting. A delete does not tell its
version; there the object itself is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tiphys_apimachinery.meta import is_being_deleted, join_key, resource_version
from tiphys_component.clock import Clock

# Source: kubernetes pkg/controller/controller_utils.go, ExpectationsTimeout. Past it the view is believed again.
TIMEOUT_S = 300.0
# The version that no view ever reaches.
_UNKNOWN = 1 << 63


class View(Protocol):
    """The part of an informer that is asked; reached() is the version up to which it has seen everything."""

    def get(self, key: str) -> Any | None:
        """The object with this key."""

    def reached(self) -> int:
        """The version up to which the view is complete."""


@dataclass(slots=True)
class _Pending:
    version: int = 0
    # By key, the uid of what is being changed and how it looks when that is seen. Gone is always seen.
    awaited: dict[str, tuple[str, Callable[[Any], bool]]] = field(default_factory=dict)
    since: float = 0.0
    # Somebody asked in vain, and is to be called when it is seen.
    is_missed: bool = False


@dataclass(frozen=True, slots=True)
class Unseen:
    """The writes of one owner that the view has still to show. version is None while it is in doubt."""

    key: str
    version: int | None
    awaited: tuple[str, ...]
    age_s: float


class Expectations:
    """By the key of the owner, the writes to its dependents that the view has still to show."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view = view
        self.clock = clock
        self._pending: dict[str, _Pending] = {}

    def wrote(self, key: str, obj: Any) -> None:
        """The server answered a write for this owner with obj."""
        pending = self._entry(key)
        pending.version = max(pending.version, resource_version(obj))

    def doubt(self, key: str) -> None:
        """A write for this owner may have been carried out or not: nothing is shown before know() says which."""
        self._entry(key).version = _UNKNOWN

    def know(self, key: str, objs: Iterable[Any]) -> None:
        """These are all that the server has for this owner: the end of a doubt."""
        self._entry(key).version = max((resource_version(obj) for obj in objs), default=0)

    def deleting(self, key: str, objs: Iterable[Any]) -> None:
        """These objects, messages or views, are about to be deleted for this owner. Say so before asking."""
        self.changing(key, objs, is_being_deleted)

    def changing(self, key: str, objs: Iterable[Any], is_seen: Callable[[Any], bool]) -> None:
        """These objects are about to change for this owner, perhaps to end by it; is_seen tells by the message."""
        pending = self._entry(key)
        for obj in objs:
            metadata = getattr(obj, "metadata", obj)
            pending.awaited[join_key(metadata.namespace, metadata.name)] = (metadata.uid, is_seen)

    def not_changed(self, key: str, obj: Any) -> None:
        """The deletion or change of this object failed: it is not expected any more."""
        metadata = getattr(obj, "metadata", obj)
        pending = self._pending.get(key)
        if pending is not None:
            pending.awaited.pop(join_key(metadata.namespace, metadata.name), None)

    def forget(self, key: str) -> None:
        """The owner is gone."""
        self._pending.pop(key, None)

    def are_met(self, key: str) -> bool:
        """Whether the view shows all of this owner's writes, or TIMEOUT_S have passed since the last."""
        pending = self._pending.get(key)
        if pending is None:
            return True
        for name, (uid, is_seen) in list(pending.awaited.items()):
            obj = self._view.get(name)
            if obj is not None and obj.metadata.uid == uid and not is_seen(obj):
                # Changes are seen in their order, so those behind it are hardly there: each is looked at about once.
                break
            del pending.awaited[name]
        shown = not pending.awaited and self._view.reached() >= pending.version
        if shown or self.clock.monotonic() - pending.since > TIMEOUT_S:
            del self._pending[key]
            return True
        pending.is_missed = True
        return False

    def is_echo(self, key: str, obj: Any) -> bool:
        """Whether obj is no more than this owner's last write coming back, which nobody has waited for.

        What was written was decided from all that had been seen, and what came since has queued the key by itself: so
        an echo needs no look.
        """
        pending = self._pending.get(key)
        if pending is None or pending.awaited or pending.is_missed or pending.version != resource_version(obj):
            return False
        del self._pending[key]
        return True

    def unseen(self) -> list[Unseen]:
        """All that is awaited, for those who look on."""
        now = self.clock.monotonic()
        return [
            Unseen(key, None if one.version == _UNKNOWN else one.version, tuple(one.awaited), now - one.since)
            for key, one in self._pending.items()
        ]

    def _entry(self, key: str) -> _Pending:
        pending = self._pending.setdefault(key, _Pending())
        pending.since = self.clock.monotonic()
        return pending
