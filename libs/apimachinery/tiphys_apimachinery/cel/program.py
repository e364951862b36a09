"""Compiling and evaluating expressions, each evaluation held to a budget. See docs/adr/0009-cel-of-our-own.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tiphys_apimachinery.cel.steps import CostExceeded, Evaluate, Frame
from tiphys_apimachinery.cel.syntax import CelError, Node
from tiphys_apimachinery.cel.values import type_name

if TYPE_CHECKING:
    from tiphys_apimachinery.cel.functions import Library

# Units of cost. Source: apiserver pkg/apis/cel/config.go.
PER_CALL_LIMIT: Final = 1_000_000
BUDGET: Final = 10_000_000
CONDITIONS_BUDGET: Final = 2_500_000
# Beyond all that Kubernetes takes; keeps the time of compiling in bounds.
_MAX_EXPRESSION: Final = 64 * 1024


class BudgetExceeded(CelError):
    """What is evaluated together has cost more than it may."""

    def __init__(self) -> None:
        super().__init__("validation failed due to running out of cost budget, no further validation rules will be run")


class TakesLong(Exception):
    """What is evaluated together has cost more than may be spent in one go; nothing else is known of it.

    No CelError: neither an expression nor a policy for failures can make anything of it.
    """


# What each budget made in this context may spend in one go; None where nobody waits for the loop. A context's and not
# an argument, as budgets are made deep below those who know where they run.
at_once: Final[ContextVar[int | None]] = ContextVar("at_once", default=None)


class Budget:
    """How much evaluations that belong together may still cost, in all and in one go."""

    __slots__ = ("at_once", "left")

    def __init__(self, units: int = BUDGET) -> None:
        self.left = units
        self.at_once = at_once.get() or BUDGET


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression; variables are those it names."""

    source: str
    variables: frozenset[str]
    syntax: Node
    compiled: Evaluate

    def evaluate(self, activation: Activation) -> Any:
        """Its value. Raises CelError; BudgetExceeded where nothing more may be evaluated; TakesLong."""
        budget = activation.budget
        frame = Frame(activation.variables, min(PER_CALL_LIMIT, budget.left, budget.at_once))
        allowed = frame.left
        try:
            found = self.compiled(frame)
            if frame.left < 0:
                raise CostExceeded
            return found
        except RecursionError as err:
            raise CelError("expression is nested too deeply") from err
        except CostExceeded:
            if budget.at_once < min(PER_CALL_LIMIT, budget.left):
                raise TakesLong from None
            if budget.left < PER_CALL_LIMIT:
                raise BudgetExceeded from None
            raise
        finally:
            budget.left -= allowed - frame.left
            budget.at_once -= allowed - frame.left

    def is_true(self, activation: Activation) -> bool:
        """Its value, which must be a bool. Raises CelError."""
        value = self.evaluate(activation)
        if not isinstance(value, bool):
            raise CelError(f"expression {self.source!r} gives {type_name(value)}, not bool")
        return value


class Activation:
    """The variables that expressions see, and what their evaluation may cost in all."""

    __slots__ = ("budget", "variables")

    def __init__(self, variables: Mapping[str, Any], budget: Budget | None = None) -> None:
        self.variables: dict[str, Any] = dict(variables)
        self.budget = budget or Budget()

    def put(self, name: str, value: Any) -> None:
        """Set one more variable."""
        self.variables[name] = value


def compile_program(
    source: str, variables: frozenset[str], library: Callable[[], Library], *, constructs: bool = False
) -> Program:
    """The expression over these variables, with the functions of the library. Raises CelError: what is wrong and where.

    With constructs it may make objects: Object{...}, JSONPatch{...}.
    """
    if len(source) > _MAX_EXPRESSION:
        raise CelError(f"expression is longer than {_MAX_EXPRESSION} characters")
    if not source.strip():
        raise CelError("expression is empty")
    try:
        syntax, used, compiled = _compiler()(source, variables, library(), constructs)
    except RecursionError as err:
        raise CelError("expression is nested too deeply") from err
    return Program(source, used, syntax, compiled)


@cache
def _compiler() -> Callable[[str, frozenset[str], Library, bool], tuple[Node, frozenset[str], Evaluate]]:
    """The compiler, imported with the first expression: most processes start without one."""
    from tiphys_apimachinery.cel.compiler import compile_source

    return compile_source
