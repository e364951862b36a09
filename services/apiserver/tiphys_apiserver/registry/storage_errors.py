"""Turns what a store refuses into errors of the API, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tiphys_apimachinery.errors import Expired, InternalError, RequestEntityTooLarge, ServiceUnavailable, Timeout
from tiphys_apiserver.storage.interface import (
    Compacted,
    FutureRevision,
    OutcomeUnknown,
    StorageError,
    StoreClosed,
    StoreFull,
    StoreUnavailable,
    ValueTooLarge,
)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Translate the store's errors that no caller handles by itself (KeyExists and its like pass untouched).

    Raises Expired, Timeout, ServiceUnavailable, RequestEntityTooLarge or InternalError from the store's error.
    """
    try:
        yield
    except (Compacted, FutureRevision, OutcomeUnknown, StoreUnavailable, StoreClosed, ValueTooLarge) as err:
        raise translate(err) from err


def translate(
    err: StorageError,
) -> Expired | Timeout | ServiceUnavailable | RequestEntityTooLarge | InternalError:
    """The error of the API that says the same."""
    match err:
        case Compacted():
            return Expired("The resourceVersion for the provided list is too old.")
        case FutureRevision():
            return Timeout.of(f"Too large resource version: current: {err.revision}", 1)
        case OutcomeUnknown():
            return Timeout.of(f"the store did not answer in time, the write may have happened: {err}")
        case ValueTooLarge():
            return RequestEntityTooLarge.of(str(err))
        case StoreFull():
            return ServiceUnavailable(f"the store has no space left, free some: {err}")
        case StoreUnavailable() | StoreClosed():
            return ServiceUnavailable(f"the store is not available: {err}")
        case _:
            return InternalError.of(err)
