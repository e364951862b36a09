"""Finds the keys of objects by label pair, field value or owner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat
from tiphys_apiserver.storage.selection import FIELD, LABEL, OWNER, Pin


class ObjectIndex:
    """Pins to keys. Most pins have one object, and are kept as the bare key to save memory."""

    def __init__(self, object_format: ObjectFormat) -> None:
        self._keys: dict[Pin, str | set[str]] = {}
        self._fields = [
            (name, position)
            for name, position in object_format.field_positions.items()
            if not name.startswith("metadata.")
        ]

    def replace(self, previous: CachedObject | None, current: CachedObject | None) -> None:
        """Move an object from the pins it had to those it has."""
        if previous is None:
            if current is not None:
                for pin in self._pins(current):
                    self._add(pin, current.key)
        elif current is None:
            for pin in self._pins(previous):
                self._remove(pin, previous.key)
        elif previous.labels == current.labels and previous.owner_uids == current.owner_uids:
            before, after = previous.field_values, current.field_values
            if before == after:
                return
            for name, position in self._fields:
                old, new = before[position], after[position]
                if old != new:
                    self._remove((FIELD, name, old), previous.key)
                    self._add((FIELD, name, new), current.key)
        else:
            had, has = set(self._pins(previous)), set(self._pins(current))
            for pin in had - has:
                self._remove(pin, previous.key)
            for pin in has - had:
                self._add(pin, current.key)

    def count(self, pin: Pin) -> int:
        """How many objects have the pin."""
        found = self._keys.get(pin)
        if found is None:
            return 0
        return 1 if isinstance(found, str) else len(found)

    def keys(self, pin: Pin) -> Iterable[str]:
        """Keys of the objects with the pin, in no order; valid until the next change."""
        found = self._keys.get(pin)
        if found is None:
            return ()
        return (found,) if isinstance(found, str) else found

    def best(self, pins: Sequence[Pin]) -> Pin | None:
        """The pin with the fewest objects, None if there are no pins."""
        return min(pins, key=self.count, default=None)

    def clear(self) -> None:
        """Forget all."""
        self._keys.clear()

    def _pins(self, cached: CachedObject) -> Iterator[Pin]:
        for key, value in cached.labels.items():
            yield (LABEL, key, value)
        values = cached.field_values
        for name, position in self._fields:
            yield (FIELD, name, values[position])
        for uid in cached.owner_uids:
            yield (OWNER, "", uid)

    def _add(self, pin: Pin, key: str) -> None:
        found = self._keys.get(pin)
        if found is None:
            self._keys[pin] = key
        elif isinstance(found, set):
            found.add(key)
        elif found != key:
            self._keys[pin] = {found, key}

    def _remove(self, pin: Pin, key: str) -> None:
        found = self._keys.get(pin)
        if isinstance(found, set):
            found.discard(key)
            if not found:
                del self._keys[pin]
        elif found == key:
            del self._keys[pin]
