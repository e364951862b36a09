"""API errors over gRPC: a Status travels in the trailer grpc-status-details-bin, beside the code and message of gRPC.

reply_for is the error mapper of servers (tiphys_component.rpc.Server), error_from the other end of it.
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import (
    AlreadyExists,
    APIError,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    NotFound,
    ServiceUnavailable,
    Timeout,
    TooManyRequests,
    Unauthorized,
    from_status,
    grpc_code,
)
from tiphys_component.rpc import ErrorReply

DETAILS_KEY = "grpc-status-details-bin"

# gRPC refuses trailers of more than 8 KB in all, and base64 and the plain message come on top of the details.
_DETAILS_LIMIT = 4096
_MESSAGE_LIMIT = 1024

_BY_CODE: dict[grpc.StatusCode, type[APIError]] = {
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailable,
    grpc.StatusCode.CANCELLED: ServiceUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Timeout,
    grpc.StatusCode.UNAUTHENTICATED: Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
    grpc.StatusCode.UNIMPLEMENTED: MethodNotAllowed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooManyRequests,
    grpc.StatusCode.OUT_OF_RANGE: Expired,
}


def reply_for(err: Exception) -> ErrorReply | None:
    """What a caller is told of an API error; None for any other. Of a very long one the causes are left out."""
    if not isinstance(err, APIError):
        return None
    code = grpc_code(err)
    status = err.to_status()
    if status.ByteSize() > _DETAILS_LIMIT:
        status.details.ClearField("causes")
        status.message = status.message[: _DETAILS_LIMIT // 4]
    details = status_pb2.Status(code=code.value[0], message=err.message[:_MESSAGE_LIMIT])
    details.details.add().Pack(status)
    return code, err.message[:_MESSAGE_LIMIT], ((DETAILS_KEY, details.SerializeToString()),)


def error_from(err: grpc.aio.AioRpcError) -> APIError:
    """The API error behind a failed call: the Status that the server sent along, else one by the gRPC code."""
    metadata: Any = err.trailing_metadata()
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = _read_details(value)
            if status is not None:
                return from_status(status)
    return _BY_CODE.get(err.code(), InternalError)(err.details() or err.code().name)


def _read_details(value: bytes) -> meta_pb2.Status | None:
    try:
        outer = status_pb2.Status.FromString(value)
        for detail in outer.details:
            if detail.Is(meta_pb2.Status.DESCRIPTOR):
                return meta_pb2.Status.FromString(detail.value)
    except DecodeError:
        return None
    return None
