"""Functions as tables: for each name the types it takes, what it does, and what it costs.

"string.charAt(int): string"     a method of texts
"size(string|bytes): int"        a function
".sets.contains(list, list): bool"  a function whose name has a dot
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tiphys_apimachinery.cel.steps import Frame
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import CelType, NamedFormat, Optional, SemVer, UInt, Url, no_overload
from tiphys_apimachinery.quantity import Quantity

Cost = Callable[..., int]
_SIGNATURE: Final = re.compile(r"(?:\.|(?P<on>[\w|]+)\.)?(?P<name>[\w.]+)\((?P<args>[^)]*)\): (?P<result>\w+)")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "bool": (bool,),
    "int": (int,),
    "uint": (UInt,),
    "double": (float,),
    "number": (int, UInt, float),
    "string": (str,),
    "bytes": (bytes,),
    "list": (list,),
    "map": (dict,),
    "null": (type(None),),
    "timestamp": (datetime.datetime,),
    "duration": (datetime.timedelta,),
    "optional": (Optional,),
    "type": (CelType,),
    "quantity": (Quantity,),
    "ip": (ipaddress.IPv4Address, ipaddress.IPv6Address),
    "cidr": (ipaddress.IPv4Interface, ipaddress.IPv6Interface),
    "url": (Url,),
    "format": (NamedFormat,),
    "semver": (SemVer,),
}
_ANY: Final = "any"


def _takes(wanted: str, cls: type) -> bool:
    """Whether a value of the class fits a type of a signature, such as string|bytes."""
    for name in wanted.split("|"):
        if name == _ANY or cls.__name__ == name:
            return True
        for known in _TYPES.get(name, ()):
            if cls is known or (known is dict and issubclass(cls, dict)):
                return True
    return False


@dataclass(frozen=True, slots=True)
class Overload:
    """One form of a function. cost is given the arguments; 1 where it is None."""

    params: tuple[str, ...]
    result: str
    work: Callable[..., Any]
    cost: Cost | None = None


@dataclass(slots=True)
class Function:
    """A function or method by name; a method's first argument is what stands before the dot."""

    name: str
    overloads: list[Overload] = field(default_factory=list)
    _found: dict[tuple[type, ...], Overload] = field(default_factory=dict)

    def takes(self, count: int) -> bool:
        """Whether there is a form with so many arguments."""
        return any(len(overload.params) == count for overload in self.overloads)

    def call(self, frame: Frame, args: tuple[Any, ...]) -> Any:
        """The value for these arguments. Raises CelError."""
        classes = tuple(map(type, args))
        overload = self._found.get(classes) or self._find(classes, args)
        cost = overload.cost
        frame.spend(1 if cost is None else 1 + cost(*args))
        try:
            return overload.work(*args)
        except CelError:
            raise
        except (ValueError, TypeError, ArithmeticError, IndexError, KeyError) as err:
            raise CelError(str(err) or type(err).__name__) from err

    def _find(self, classes: tuple[type, ...], args: tuple[Any, ...]) -> Overload:
        for overload in self.overloads:
            if len(overload.params) == len(classes) and all(map(_takes, overload.params, classes)):
                self._found[classes] = overload
                return overload
        raise no_overload(self.name, *args)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a table: a signature, what it does, and what it costs beyond one."""

    signature: str
    work: Callable[..., Any]
    cost: Cost | None = None


def functions(entries: Iterable[Entry]) -> tuple[dict[str, Function], dict[str, Function]]:
    """Functions and methods by name."""
    plain: dict[str, Function] = {}
    methods: dict[str, Function] = {}
    for entry in entries:
        match = _SIGNATURE.fullmatch(entry.signature)
        if match is None:
            raise ValueError(f"no signature of a function: {entry.signature!r}")
        params = tuple(match["args"].split(", ")) if match["args"] else ()
        on, name = match["on"], match["name"]
        home = plain if on is None else methods
        found = home.setdefault(name, Function(name))
        found.overloads.append(
            Overload(params if on is None else (on, *params), match["result"], entry.work, entry.cost)
        )
    return plain, methods
