"""The statuses that a CSI driver answers with, made in one place.

CsiError
  raised by a driver's code through the functions below, turned into a gRPC status by reply_for, at the edge.

Source: csi.v1's specification, section "Error Scheme" and the table under each call.
"""

from __future__ import annotations

import grpc

from tiphys_component.rpc import ErrorReply


class CsiError(Exception):
    """A call that fails in a way which the contract foresees."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(field: str, problem: str) -> CsiError:
    """A field is missing or makes no sense."""
    return CsiError(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {problem}")


def not_found(kind: str, identity: str) -> CsiError:
    """There is no such volume, snapshot or node."""
    return CsiError(grpc.StatusCode.NOT_FOUND, f"{kind} {identity!r} does not exist")


def already_exists(kind: str, name: str, difference: str) -> CsiError:
    """It exists, and is another one than is asked for."""
    return CsiError(grpc.StatusCode.ALREADY_EXISTS, f"{kind} {name!r} exists: {difference}")


def out_of_range(problem: str) -> CsiError:
    """A size that this driver can't make."""
    return CsiError(grpc.StatusCode.OUT_OF_RANGE, problem)


def resource_exhausted(problem: str) -> CsiError:
    """No room is left here; another place may have some."""
    return CsiError(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)


def failed_precondition(problem: str) -> CsiError:
    """The caller must do something else first, such as detach."""
    return CsiError(grpc.StatusCode.FAILED_PRECONDITION, problem)


def aborted(problem: str) -> CsiError:
    """Another call for the same thing is at work, or a list's token is stale: try again later."""
    return CsiError(grpc.StatusCode.ABORTED, problem)


def unimplemented(call: str) -> CsiError:
    """The driver does not offer the call."""
    return CsiError(grpc.StatusCode.UNIMPLEMENTED, f"this driver has no {call}")


def internal(problem: str) -> CsiError:
    """Something failed that nobody foresaw; the caller tries again."""
    return CsiError(grpc.StatusCode.INTERNAL, problem)


def reply_for(err: Exception) -> ErrorReply | None:
    """What a caller is told of an error: the status of a CsiError, INTERNAL with the kernel's words for an OSError."""
    if isinstance(err, CsiError):
        return err.code, err.message, ()
    if isinstance(err, OSError):
        return grpc.StatusCode.INTERNAL, str(err), ()
    return None
