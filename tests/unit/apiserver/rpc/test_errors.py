"""Errors as gRPC callers get them."""

from __future__ import annotations

import grpc
from google.rpc import status_pb2

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import FieldError, Invalid, NotFound
from tiphys_apiserver.rpc.errors import map_error


def test_error_carries_its_status() -> None:
    reply = map_error(NotFound.of("pods", "p"))
    assert reply is not None
    code, message, metadata = reply
    assert (code, message) == (grpc.StatusCode.NOT_FOUND, 'pods "p" not found')
    raw = dict(metadata)["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    details = status_pb2.Status.FromString(raw)
    assert details.code == 5
    status = meta_pb2.Status.FromString(details.details[0].value)
    assert (status.code, status.reason, status.details.kind) == (404, "NotFound", "pods")


def test_long_error_fits_into_a_trailer() -> None:
    errors = [FieldError.invalid(f"spec.containers[{index}].name", "x" * 50, "is bad") for index in range(200)]
    reply = map_error(Invalid.of("Pod", "p", errors))
    assert reply is not None
    assert sum(len(value) for _, value in reply[2]) + len(reply[1]) < 8192
    assert reply[1].startswith('Pod "p" is invalid: [spec.containers[0].name')


def test_what_is_no_answer_of_the_api_is_left_to_the_server() -> None:
    assert map_error(ValueError("x")) is None
