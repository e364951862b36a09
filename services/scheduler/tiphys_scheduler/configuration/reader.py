"""Reads plain values strictly: whatever is wrong or unknown is said with its place and value, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class ConfigurationError(ValueError):
    """The file does not say what a scheduler can do; the message names each field with its value."""


@dataclass(slots=True)
class Faults:
    """Everything found wrong so far."""

    found: list[str] = field(default_factory=list)

    def add(self, path: str, value: object, why: str) -> None:
        """One field, its value, and what is the matter."""
        self.found.append(f"{path or 'file'}: Invalid value: {value!r}: {why}")


class Reader:
    """One mapping of the file. Members are taken by name; `close` objects to those that nobody took."""

    def __init__(self, value: object, path: str, faults: Faults) -> None:
        self.path, self.faults = path, faults
        self._members: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            self._members = value
        elif value is not None:
            faults.add(path, value, "must be a mapping")
        self._taken: set[str] = set()

    def at(self, name: str) -> str:
        """Path of a member."""
        return f"{self.path}.{name}" if self.path else name

    def raw(self, name: str) -> Any:
        """A member as it is, None when absent."""
        self._taken.add(name)
        return self._members.get(name)

    def ignore(self, *names: str) -> None:
        """Takes members that are accepted and change nothing."""
        self._taken.update(names)

    def text(self, name: str, default: str = "", *, one_of: Sequence[str] = ()) -> str:
        """A text, out of the given ones if there are some."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.faults.add(self.at(name), value, "must be text")
            return default
        if one_of and value not in one_of:
            self.faults.add(self.at(name), value, f"must be one of {', '.join(one_of)}")
            return default
        return value

    def number(self, name: str, default: int, low: int = 0, high: int = 2**31 - 1) -> int:
        """A whole number within bounds."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.faults.add(self.at(name), value, "must be a whole number")
            return default
        if not low <= value <= high:
            self.faults.add(self.at(name), value, f"must be {low} to {high}")
            return default
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """True or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.faults.add(self.at(name), value, "must be true or false")
            return default
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.raw(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.faults.add(self.at(name), value, "must be a list of texts")
            return ()
        return tuple(value)

    def member(self, name: str) -> Reader:
        """A mapping within; an empty one when absent."""
        return Reader(self.raw(name), self.at(name), self.faults)

    def each(self, name: str) -> Iterator[Reader]:
        """The mappings of a list; each is closed when the next is asked for."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, list):
            self.faults.add(self.at(name), value, "must be a list")
            return
        for index, item in enumerate(value):
            reader = Reader(item, f"{self.at(name)}[{index}]", self.faults)
            yield reader
            reader.close()

    def close(self) -> None:
        """Objects to members that nobody knows."""
        for name in self._members:
            if name not in self._taken:
                self.faults.found.append(f'{self.at(str(name))}: unknown field "{name}"')


def read_strictly(value: object, of: Callable[[Reader], Any]) -> Any:
    """What `of` makes of a whole file. Raises ConfigurationError with everything that is wrong."""
    faults = Faults()
    reader = Reader(value, "", faults)
    made = of(reader)
    reader.close()
    if faults.found:
        raise ConfigurationError("; ".join(faults.found))
    return made
