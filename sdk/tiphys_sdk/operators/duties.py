"""What an operator does for one kind, and what else it looks at for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tiphys_client.controller import RequeueAfter
from tiphys_sdk.operators.work import Work

T = TypeVar("T")
Reconcile = Callable[[T, Work], Awaitable[RequeueAfter | None]]
Finalize = Callable[[T, Work], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Watch:
    """A kind that is followed though it is not owned; keys are those of the objects that a change of one touches."""

    cls: Any
    keys: Callable[[Any], Iterable[str]]


@dataclass(slots=True)
class Duty:
    """One kind: its functions, the kinds that it owns, and those that it follows."""

    cls: Any
    reconcile: Reconcile[Any]
    owns: Sequence[Any] = ()
    watches: Sequence[Watch] = ()
    finalize: Finalize[Any] | None = None
