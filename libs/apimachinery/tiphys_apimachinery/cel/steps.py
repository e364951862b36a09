"""What every closure of an expression works with: the frame of one evaluation, and reading members of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import no_overload

ABSENT: Final[Any] = object()
# How names that an expression can't write stand in it. Source: apiserver pkg/cel, escaping of property names.
_ESCAPES: Final = {
    "__underscores__": "__",
    "__dot__": ".",
    "__dash__": "-",
    "__slash__": "/",
}
_RESERVED: Final = frozenset(
    {
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip


class CostExceeded(CelError):
    """The expression has cost more than it may."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class Frame:
    """One evaluation: the variables, and how much it may still cost."""

    __slots__ = ("left", "variables")

    def __init__(self, variables: MutableMapping[str, Any], left: int) -> None:
        self.variables = variables
        self.left = left

    def spend(self, cost: int) -> None:
        """Pay for a step. Raises CostExceeded."""
        self.left -= cost
        if self.left < 0:
            raise CostExceeded

    def seeing(self, name: str, value: Any, body: Evaluate) -> Any:
        """What body gives where name is the value."""
        variables = self.variables
        before = variables.get(name, ABSENT)
        variables[name] = value
        try:
            return body(self)
        finally:
            if before is ABSENT:
                del variables[name]
            else:
                variables[name] = before


Evaluate = Callable[[Frame], Any]


def select(value: Any, name: str) -> Any:
    """The member of a map; ABSENT where there is none. Raises CelError for what has no members."""
    if not isinstance(value, Mapping):
        raise CelError(f"no such key: {name}") if value is None else no_overload(f"select {name}", value)
    if name in value:
        return value[name]
    plain = unescaped(name) if "__" in name else name
    return value.get(plain, ABSENT)


def index(value: Any, key: Any) -> Any:
    """An item of a list, or the entry of a map; ABSENT where there is none. Raises CelError for other values."""
    if isinstance(value, list):
        if isinstance(key, bool) or not isinstance(key, (int, float)) or key != int(key):
            raise no_overload("_[_]", value, key)
        return value[int(key)] if 0 <= key < len(value) else ABSENT
    if isinstance(value, Mapping):
        if isinstance(key, (list, dict, float)) or key is None:
            raise no_overload("_[_]", value, key)
        return value.get(key, ABSENT)
    raise no_overload("_[_]", value, key)


def unescaped(name: str) -> str:
    """The member that a name with escapes stands for."""
    if name.startswith("__") and name.endswith("__") and name[2:-2] in _RESERVED:
        return name[2:-2]
    for escape, plain in _ESCAPES.items():
        name = name.replace(escape, plain)
    return name
