"""Errors to gRPC: a status code, a message, and the whole Status in the trailing metadata."""

from __future__ import annotations

import grpc
from google.rpc import status_pb2

from tiphys_apimachinery.errors import APIError, grpc_code
from tiphys_component.rpc import ErrorReply

DETAILS_KEY = "grpc-status-details-bin"
_STATUS_TYPE = "type.googleapis.com/k8s.io.apimachinery.pkg.apis.meta.v1.Status"
# Peers refuse trailers over 8 KiB as a rule; the message goes by a header of its own.
_MAX_DETAILS_BYTES = 3000
_MAX_MESSAGE_CHARACTERS = 2000


def map_error(error: Exception) -> ErrorReply | None:
    """What the caller is told; None for an error that is no answer of the API."""
    if not isinstance(error, APIError):
        return None
    code: grpc.StatusCode = grpc_code(error)
    status = error.to_status()
    if status.ByteSize() > _MAX_DETAILS_BYTES:
        del status.details.causes[:]
        status.message = status.message[:_MAX_MESSAGE_CHARACTERS]
    details = status_pb2.Status(code=code.value[0], message=status.message)
    packed = details.details.add()
    packed.type_url = _STATUS_TYPE
    packed.value = status.SerializeToString()
    return code, status.message, ((DETAILS_KEY, details.SerializeToString()),)
