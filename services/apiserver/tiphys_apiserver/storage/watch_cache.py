"""The current objects of one resource and the last changes to them. No I/O and no clock: events in, answers out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Mapping

from tiphys_apimachinery.errors import Expired
from tiphys_apiserver.storage.index import ObjectIndex
from tiphys_apiserver.storage.interface import Event, EventType
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat
from tiphys_apiserver.storage.selection import Matcher
from tiphys_apiserver.storage.watch_event import Change

# No key holds a character above this, so prefix + LAST is behind every key under the prefix.
LAST = "\U0010ffff"


class RevisionTooOld(Exception):
    """The changes since a revision are no longer remembered; ``oldest`` is where memory begins."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"changes are remembered after revision {oldest}")
        self.oldest = oldest


class WatchCache:
    """State at ``revision`` and every change after ``floor``.

    States between the two are not stored: they are the present with the changes after them undone, which makes exact
    lists and pages cost what has changed since, and nothing while nobody asks.
    """

    def __init__(
        self,
        prefix: str,
        object_format: ObjectFormat,
        *,
        capacity: int = 8192,
        capacity_bytes: int = 16 << 20,
        hot_json_limit_bytes: int = 64 << 20,
    ) -> None:
        self.prefix = prefix
        self.format = object_format
        self.objects: dict[str, CachedObject] = {}
        # Keys of objects in order.
        self._keys: list[str] = []
        self._index = ObjectIndex(object_format)
        self._ring: deque[Change] = deque()
        self._ring_bytes = 0
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._hot_json_limit = hot_json_limit_bytes
        # The last change applied, or the revision of the first list.
        self.revision = 0
        # Every change after this is in the ring.
        self.floor = 0

    def replace(self, objects: Iterable[CachedObject], revision: int) -> None:
        """Begin anew with the state of a list; the changes before are forgotten."""
        self.objects = {cached.key: cached for cached in objects}
        self._keys = sorted(self.objects)
        self._index.clear()
        for cached in self.objects.values():
            self._index.replace(None, cached)
        self._ring.clear()
        self._ring_bytes = 0
        self.revision = self.floor = revision

    def apply(self, event: Event) -> Change | None:
        """Take in the next event of the store; None where nothing changed for readers.

        Raises UnreadableObject; the key then counts as deleted if apply_unreadable is called.
        """
        current = None
        if event.type is EventType.PUT:
            current = self.format.ingest(event.key, event.value, event.mod_revision)
        return self._change(event.key, current, event.mod_revision)

    def apply_unreadable(self, event: Event) -> Change | None:
        """Take in an event whose value can't be read: the object is gone from the cache."""
        return self._change(event.key, None, event.mod_revision)

    def _change(self, key: str, current: CachedObject | None, revision: int) -> Change | None:
        previous = self.objects.get(key)
        self.revision = revision
        if current is not None:
            self.objects[key] = current
            if previous is None:
                insort(self._keys, key)
        elif previous is not None:
            del self.objects[key]
            del self._keys[bisect_left(self._keys, key)]
        else:
            return None
        self._index.replace(previous, current)
        if previous is not None:
            previous.drop_json()
        change = Change(revision, previous, current)
        self._remember(change)
        return change

    def _remember(self, change: Change) -> None:
        self._ring.append(change)
        self._ring_bytes += _size(change)
        while len(self._ring) > self._capacity or (self._ring_bytes > self._capacity_bytes and len(self._ring) > 100):
            oldest = self._ring.popleft()
            self._ring_bytes -= _size(oldest)
            self.floor = oldest.revision

    def changes_after(self, revision: int) -> list[Change]:
        """Every change after a revision, in order. Raises RevisionTooOld."""
        if revision < self.floor:
            raise RevisionTooOld(self.floor)
        if revision >= self.revision:
            return []
        found: list[Change] = []
        for change in reversed(self._ring):
            if change.revision <= revision:
                break
            found.append(change)
        found.reverse()
        return found

    def select(self, matcher: Matcher, *, start_after: str = "", limit: int = 0) -> list[CachedObject]:
        """The objects chosen, in key order, behind ``start_after``; ``limit`` 0 is all."""
        objects = self.objects
        # Bounds and no slices: a page of 500 must not copy the keys of 100,000.
        keys, first, last = self._candidates(matcher)
        if start_after:
            first = bisect_right(keys, start_after, lo=first, hi=last)
        # All keys between bounds lie in the namespace; those of an index may not.
        matches = matcher.matches_inside if keys is self._keys else matcher.matches
        if matches is None:
            return list(map(objects.__getitem__, keys[first : min(last, first + limit) if limit else last]))
        if not limit:
            return [cached for key in keys[first:last] if matches(cached := objects[key])]
        found: list[CachedObject] = []
        for at in range(first, last):
            cached = objects[keys[at]]
            if matches(cached):
                found.append(cached)
                if len(found) == limit:
                    break
        return found

    def _candidates(self, matcher: Matcher) -> tuple[list[str], int, int]:
        """Keys in order, and the bounds between which are all that match."""
        prefix = f"{self.prefix}{matcher.namespace}/" if matcher.namespace else self.prefix
        if matcher.exact_name:
            key = prefix + matcher.exact_name
            if key in self.objects:
                return [key], 0, 1
        pin = self._index.best(matcher.pins)
        if not matcher.namespace:
            if pin is None or self._index.count(pin) == len(self._keys):
                return self._keys, 0, len(self._keys)
            return _all_of(sorted(self._index.keys(pin)))
        first = bisect_left(self._keys, prefix)
        last = bisect_left(self._keys, prefix + LAST, lo=first)
        if pin is None or self._index.count(pin) >= last - first:
            return self._keys, first, last
        return _all_of(sorted(self._index.keys(pin)))

    def select_at(
        self, matcher: Matcher, revision: int, *, start_after: str = "", limit: int = 0
    ) -> list[CachedObject]:
        """The objects chosen as they stood at a past revision. Raises RevisionTooOld."""
        changed = self.undo(revision)
        if not changed:
            return self.select(matcher, start_after=start_after, limit=limit)
        matches = matcher.matches
        then = [
            cached
            for key, cached in changed.items()
            if cached is not None and key > start_after and (matches is None or matches(cached))
        ]
        # Of the present, as many more as changed keys may take out again.
        now = self.select(matcher, start_after=start_after, limit=limit and limit + len(changed))
        then.extend(cached for cached in now if cached.key not in changed)
        then.sort(key=_key)
        return then[:limit] if limit else then

    def count(self, namespace: str) -> int:
        """How many objects a namespace has now."""
        prefix = f"{self.prefix}{namespace}/"
        return bisect_left(self._keys, prefix + LAST) - bisect_left(self._keys, prefix)

    def count_at(self, namespace: str, revision: int, *, start_after: str) -> int:
        """How many objects of a namespace, or of all, stood behind a key at a revision. Raises RevisionTooOld."""
        prefix = f"{self.prefix}{namespace}/" if namespace else self.prefix
        low, high = max(prefix, start_after), prefix + LAST
        count = bisect_left(self._keys, high) - bisect_right(self._keys, low)
        for key, then in self.undo(revision).items():
            if low < key < high:
                count += (then is not None) - (key in self.objects)
        return count

    def undo(self, revision: int) -> Mapping[str, CachedObject | None]:
        """What stood at a past revision under each key changed since. Raises RevisionTooOld."""
        changes = self.changes_after(revision)
        changed: dict[str, CachedObject | None] = {}
        for change in reversed(changes):
            changed[change.key] = change.previous
        return changed

    def free_json(self) -> None:
        """Drop all JSON when it has grown over its limit; what is hot will be made again."""
        if self.format.hot_json_bytes > self._hot_json_limit:
            for cached in self.objects.values():
                cached.drop_json()

    def too_old(self, revision: int) -> Expired:
        """The error for a revision that is no longer remembered."""
        return Expired.of(revision, self.floor)

    def __len__(self) -> int:
        return len(self.objects)


def _key(cached: CachedObject) -> str:
    return cached.key


def _size(change: Change) -> int:
    # The previous version is the current one of an earlier change, but after eviction only this change holds it.
    previous = len(change.previous.raw) if change.previous is not None else 0
    current = len(change.current.raw) if change.current is not None else 0
    return previous + current + 200


def _all_of(keys: list[str]) -> tuple[list[str], int, int]:
    return keys, 0, len(keys)
