"""Errors of the API, as every part of the system raises, sends and receives them.

    APIError                     code  reason
    +-- BadRequest               400   BadRequest
    +-- Unauthorized             401   Unauthorized
    +-- Forbidden                403   Forbidden
    +-- NotFound                 404   NotFound
    +-- MethodNotAllowed         405   MethodNotAllowed
    +-- NotAcceptable            406   NotAcceptable
    +-- AlreadyExists            409   AlreadyExists
    +-- Conflict                 409   Conflict
    +-- Gone                     410   Gone
    +-- Expired                  410   Expired
    +-- RequestEntityTooLarge    413   RequestEntityTooLarge
    +-- UnsupportedMediaType     415   UnsupportedMediaType
    +-- Invalid                  422   Invalid
    +-- TooManyRequests          429   TooManyRequests
    +-- InternalError            500   InternalError
    +-- ServerTimeout            500   ServerTimeout
    +-- ServiceUnavailable       503   ServiceUnavailable
    +-- Timeout                  504   Timeout

Each class is made from a message and details, or by `of` from the facts, which writes the message
as Kubernetes does. Reasons and codes: apimachinery pkg/apis/meta/v1, StatusReason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import grpc

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.field_error import FieldError, FieldErrorType, aggregate_message, quote

__all__ = [
    "APIError",
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "FieldError",
    "FieldErrorType",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "StatusCause",
    "StatusDetails",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
    "from_status",
    "grpc_code",
    "quote",
]


@dataclass(frozen=True, slots=True)
class StatusCause:
    """One of the reasons behind an error; field is a path such as spec.replicas, or empty."""

    reason: str
    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What an error is about. `kind` is the resource's plural, but the kind itself for Invalid."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[StatusCause, ...] = ()
    retry_after_s: int = 0


class APIError(Exception):
    """An error with an HTTP code, a reason and a message; what a Status object carries.

    Raised as such only for a code that has no class here, as a foreign server may send.
    """

    code: int = 500
    reason: str = ""
    _grpc_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        details: StatusDetails | None = None,
        code: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if code is not None:
            self.code = code
        if reason is not None:
            self.reason = reason

    def __str__(self) -> str:
        return self.message

    @property
    def retry_after_s(self) -> int:
        """Seconds that the server asks the caller to wait before the next try; 0 when it does not say."""
        return self.details.retry_after_s if self.details else 0

    def to_status(self) -> meta_pb2.Status:
        """The Status message that stands for this error on the wire."""
        status = meta_pb2.Status(status="Failure", message=self.message, reason=self.reason, code=self.code)
        status.metadata.SetInParent()
        if self.details is not None:
            _fill_details(status.details, self.details)
        return status


def _fill_details(target: meta_pb2.StatusDetails, details: StatusDetails) -> None:
    target.SetInParent()
    for name in ("name", "group", "kind", "uid"):
        value = getattr(details, name)
        if value:
            setattr(target, name, value)
    for cause in details.causes:
        target.causes.add(reason=cause.reason, message=cause.message, field=cause.field)
    if details.retry_after_s:
        target.retryAfterSeconds = details.retry_after_s


def _qualified(name: str, group: str) -> str:
    """Resource or kind with its group behind it, as in deployments.apps."""
    return f"{name}.{group}" if group else name


class BadRequest(APIError):
    """The request itself can't be understood; the message says what is wrong with it."""

    code = 400
    reason = "BadRequest"
    _grpc_code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthorized(APIError):
    """The caller did not prove who it is."""

    code = 401
    reason = "Unauthorized"
    _grpc_code = grpc.StatusCode.UNAUTHENTICATED

    @classmethod
    def of(cls) -> Self:
        """The refusal without a word on why, which would help an attacker."""
        return cls("Unauthorized")


class Forbidden(APIError):
    """The caller is known and not allowed, or a policy refuses the request."""

    code = 403
    reason = "Forbidden"
    _grpc_code = grpc.StatusCode.PERMISSION_DENIED

    @classmethod
    def of(cls, resource: str, name: str, why: str, *, group: str = "") -> Self:
        """The refusal of one object, or of a whole resource where name is empty."""
        details = StatusDetails(name=name, group=group, kind=resource)
        if not resource:
            return cls(f"forbidden: {why}", details=details)
        subject = _qualified(resource, group)
        if name:
            subject = f"{subject} {quote(name)}"
        return cls(f"{subject} is forbidden: {why}", details=details)


class NotFound(APIError):
    """There is no such object, or no such resource or path."""

    code = 404
    reason = "NotFound"
    _grpc_code = grpc.StatusCode.NOT_FOUND

    @classmethod
    def of(cls, resource: str, name: str, *, group: str = "") -> Self:
        """The object is absent: pods "x" not found."""
        details = StatusDetails(name=name, group=group, kind=resource)
        return cls(f"{_qualified(resource, group)} {quote(name)} not found", details=details)

    @classmethod
    def of_path(cls) -> Self:
        """Nothing is served under the path or the resource is unknown."""
        return cls("the server could not find the requested resource", details=StatusDetails())


class MethodNotAllowed(APIError):
    """The resource does not have this verb."""

    code = 405
    reason = "MethodNotAllowed"
    _grpc_code = grpc.StatusCode.UNIMPLEMENTED

    @classmethod
    def of(cls, resource: str, action: str, *, group: str = "") -> Self:
        """The verb that was tried on the resource."""
        message = f"{action} is not supported on resources of kind {quote(_qualified(resource, group))}"
        return cls(message, details=StatusDetails(group=group, kind=resource))


class NotAcceptable(APIError):
    """No representation that the caller takes can be made."""

    code = 406
    reason = "NotAcceptable"
    _grpc_code = grpc.StatusCode.INVALID_ARGUMENT

    @classmethod
    def of(cls, accepted: Iterable[str]) -> Self:
        """Lists the media types that would be served."""
        return cls(f"only the following media types are accepted: {', '.join(accepted)}")


class AlreadyExists(APIError):
    """An object of that name is there."""

    code = 409
    reason = "AlreadyExists"
    _grpc_code = grpc.StatusCode.ALREADY_EXISTS

    @classmethod
    def of(cls, resource: str, name: str, *, group: str = "") -> Self:
        """The object that stands in the way: pods "x" already exists."""
        details = StatusDetails(name=name, group=group, kind=resource)
        return cls(f"{_qualified(resource, group)} {quote(name)} already exists", details=details)


class Conflict(APIError):
    """The object is not in the state that the request presupposes; read again, then retry."""

    code = 409
    reason = "Conflict"
    _grpc_code = grpc.StatusCode.ABORTED
    MODIFIED: ClassVar[str] = (
        "the object has been modified; please apply your changes to the latest version and try again"
    )

    @classmethod
    def of(cls, resource: str, name: str, *, group: str = "", why: str = MODIFIED) -> Self:
        """The write that lost, by default because the resourceVersion is stale."""
        subject = f"{_qualified(resource, group)} {quote(name)}"
        details = StatusDetails(name=name, group=group, kind=resource)
        return cls(f"Operation cannot be fulfilled on {subject}: {why}", details=details)


class Gone(APIError):
    """What was asked for existed and is no longer to be had."""

    code = 410
    reason = "Gone"
    _grpc_code = grpc.StatusCode.OUT_OF_RANGE


class Expired(APIError):
    """The resourceVersion or continue token is too old: list again from the start."""

    code = 410
    reason = "Expired"
    _grpc_code = grpc.StatusCode.OUT_OF_RANGE

    @classmethod
    def of(cls, requested: int, oldest: int) -> Self:
        """The revision asked for and the oldest that is still there."""
        return cls(f"too old resource version: {requested} ({oldest})")


class RequestEntityTooLarge(APIError):
    """The body is over the limit."""

    code = 413
    reason = "RequestEntityTooLarge"
    _grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED

    @classmethod
    def of(cls, why: str) -> Self:
        """The limit that was passed, as in: limit is 3145728."""
        return cls(f"Request entity too large: {why}")


class UnsupportedMediaType(APIError):
    """The body's content type is not one that the endpoint reads."""

    code = 415
    reason = "UnsupportedMediaType"
    _grpc_code = grpc.StatusCode.INVALID_ARGUMENT

    @classmethod
    def of(cls, accepted: Iterable[str]) -> Self:
        """Lists the content types that would be read."""
        listed = ", ".join(accepted)
        return cls(f"the body of the request was in an unknown format - accepted media types include: {listed}")


class Invalid(APIError):
    """The object breaks rules; each broken one is a cause."""

    code = 422
    reason = "Invalid"
    _grpc_code = grpc.StatusCode.INVALID_ARGUMENT

    @classmethod
    def of(cls, kind: str, name: str, errors: Sequence[FieldError], *, group: str = "") -> Self:
        """The object and what is wrong with its fields: Pod "x" is invalid: spec.nodeName: ..."""
        message = f"{_qualified(kind, group)} {quote(name)} is invalid"
        if errors:
            message = f"{message}: {aggregate_message(errors)}"
        causes = tuple(StatusCause(error.type.reason, error.body, error.path) for error in errors)
        return cls(message, details=StatusDetails(name=name, group=group, kind=kind, causes=causes))


class TooManyRequests(APIError):
    """The server sheds load; the same request may pass later."""

    code = 429
    reason = "TooManyRequests"
    _grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED

    @classmethod
    def of(cls, message: str, retry_after_s: int) -> Self:
        """The message, and the seconds to wait before the next try."""
        return cls(message, details=StatusDetails(retry_after_s=retry_after_s))


class InternalError(APIError):
    """The server failed in a way that the caller can't help."""

    code = 500
    reason = "InternalError"
    _grpc_code = grpc.StatusCode.INTERNAL

    @classmethod
    def of(cls, cause: BaseException | str) -> Self:
        """What went wrong inside."""
        text = str(cause)
        details = StatusDetails(causes=(StatusCause("", text),))
        return cls(f"Internal error occurred: {text}", details=details)


class ServerTimeout(APIError):
    """The operation could not be finished in time, and nothing was decided; retry."""

    code = 500
    reason = "ServerTimeout"
    _grpc_code = grpc.StatusCode.UNAVAILABLE

    @classmethod
    def of(cls, resource: str, operation: str, retry_after_s: int, *, group: str = "") -> Self:
        """The verb and the resource that were tried."""
        message = (
            f"The {operation} operation against {_qualified(resource, group)} could not be completed"
            " at this time, please try again."
        )
        details = StatusDetails(name=operation, group=group, kind=resource, retry_after_s=retry_after_s)
        return cls(message, details=details)


class ServiceUnavailable(APIError):
    """The server is not ready to serve."""

    code = 503
    reason = "ServiceUnavailable"
    _grpc_code = grpc.StatusCode.UNAVAILABLE


class Timeout(APIError):
    """The request ran out of time; whether it took effect is unknown."""

    code = 504
    reason = "Timeout"
    _grpc_code = grpc.StatusCode.DEADLINE_EXCEEDED

    @classmethod
    def of(cls, message: str, retry_after_s: int = 0) -> Self:
        """What was waited for."""
        return cls(f"Timeout: {message}", details=StatusDetails(retry_after_s=retry_after_s))


_TREE: Final[tuple[type[APIError], ...]] = (
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
)
_BY_REASON: Final[dict[str, type[APIError]]] = {cls.reason: cls for cls in _TREE}
# A code alone is ambiguous for 409, 410 and 500: the wider meaning, which comes last, is taken.
_FOR_CODES: Final[tuple[type[APIError], ...]] = (*_TREE, Conflict, Expired, InternalError)
_BY_CODE: Final[dict[int, type[APIError]]] = {cls.code: cls for cls in _FOR_CODES}


def from_status(status: meta_pb2.Status) -> APIError:
    """The error that a Status stands for: its class by reason, by code where the reason is unknown."""
    details = _read_details(status.details) if status.HasField("details") else None
    cls = _BY_REASON.get(status.reason) or _BY_CODE.get(status.code) or APIError
    message = status.message or status.reason or f"the server answered with code {status.code}"
    return cls(
        message,
        details=details,
        code=status.code or None,
        reason=status.reason or None,
    )


def _read_details(details: meta_pb2.StatusDetails) -> StatusDetails:
    causes = tuple(StatusCause(cause.reason, cause.message, cause.field) for cause in details.causes)
    return StatusDetails(
        name=details.name,
        group=details.group,
        kind=details.kind,
        uid=details.uid,
        causes=causes,
        retry_after_s=details.retryAfterSeconds,
    )


def grpc_code(error: BaseException) -> grpc.StatusCode:
    """The gRPC status code for an error; INTERNAL for whatever is not of this tree."""
    return error._grpc_code if isinstance(error, APIError) else grpc.StatusCode.INTERNAL
