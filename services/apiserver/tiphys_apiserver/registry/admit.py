"""Admission as the generic store calls it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


async def _nothing(_new: Any, _old: Any) -> None:
    return None


AdmissionStep = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Admit:
    """Admission as the store calls it: (new, old) each; old is None for create, new for delete.

    mutate gives True where somebody from outside changed the object, so that it lacks defaults again.
    """

    mutate: AdmissionStep = _nothing
    validate: AdmissionStep = _nothing


NO_ADMISSION = Admit()
