"""Errors say what Kubernetes says, and survive the way over the wire."""

from __future__ import annotations

import grpc
import pytest

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery import errors
from tiphys_apimachinery.errors import FieldError

_CASES = {
    "not found": (errors.NotFound.of("pods", "x"), 404, "NotFound", 'pods "x" not found'),
    "not found with group": (
        errors.NotFound.of("deployments", "x", group="apps"),
        404,
        "NotFound",
        'deployments.apps "x" not found',
    ),
    "exists": (errors.AlreadyExists.of("pods", "x"), 409, "AlreadyExists", 'pods "x" already exists'),
    "conflict": (
        errors.Conflict.of("pods", "x"),
        409,
        "Conflict",
        'Operation cannot be fulfilled on pods "x": the object has been modified; '
        "please apply your changes to the latest version and try again",
    ),
    "invalid": (
        errors.Invalid.of("Pod", "x", [FieldError.required("spec.containers[0].name")]),
        422,
        "Invalid",
        'Pod "x" is invalid: spec.containers[0].name: Required value',
    ),
    "invalid twice": (
        errors.Invalid.of(
            "Deployment", "x", [FieldError.required("a"), FieldError.invalid("b", 3, "bad")], group="apps"
        ),
        422,
        "Invalid",
        'Deployment.apps "x" is invalid: [a: Required value, b: Invalid value: 3: bad]',
    ),
    "forbidden": (
        errors.Forbidden.of("pods", "", 'User "a" cannot list resource "pods"'),
        403,
        "Forbidden",
        'pods is forbidden: User "a" cannot list resource "pods"',
    ),
    "internal": (errors.InternalError.of(ValueError("boom")), 500, "InternalError", "Internal error occurred: boom"),
    "gone": (errors.Expired.of(3, 9), 410, "Expired", "too old resource version: 3 (9)"),
}


@pytest.mark.parametrize(("error", "code", "reason", "message"), _CASES.values(), ids=_CASES)
def test_status_carries_code_reason_and_message(error: errors.APIError, code: int, reason: str, message: str) -> None:
    status = error.to_status()
    assert (status.status, status.code, status.reason, status.message) == ("Failure", code, reason, message)


@pytest.mark.parametrize("error", [case[0] for case in _CASES.values()], ids=_CASES)
def test_error_survives_the_way_through_a_status(error: errors.APIError) -> None:
    back = errors.from_status(meta_pb2.Status.FromString(error.to_status().SerializeToString()))
    assert (type(back), str(back), back.details) == (type(error), str(error), error.details)


def test_status_of_an_invalid_object_names_kind_and_causes() -> None:
    error = errors.Invalid.of(
        "Pod", "x", [FieldError.not_supported("spec.restartPolicy", "Maybe", ["Always", "Never"])]
    )
    details = error.to_status().details
    assert (details.kind, details.name) == ("Pod", "x")
    assert details.causes[0].reason == "FieldValueNotSupported"
    assert details.causes[0].field == "spec.restartPolicy"
    assert details.causes[0].message == 'Unsupported value: "Maybe": supported values: "Always", "Never"'


def test_unknown_reason_falls_back_to_the_code() -> None:
    error = errors.from_status(meta_pb2.Status(code=409, reason="Strange", message="m"))
    assert type(error) is errors.Conflict
    assert error.reason == "Strange"


def test_unknown_code_and_reason_keep_what_the_server_said() -> None:
    error = errors.from_status(meta_pb2.Status(code=418, reason="Teapot", message="short and stout"))
    assert type(error) is errors.APIError
    assert (error.code, error.reason, str(error)) == (418, "Teapot", "short and stout")


def test_grpc_codes_tell_retryable_from_final() -> None:
    assert errors.grpc_code(errors.NotFound("x")) is grpc.StatusCode.NOT_FOUND
    assert errors.grpc_code(errors.Conflict("x")) is grpc.StatusCode.ABORTED
    assert errors.grpc_code(errors.TooManyRequests.of("x", 3)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert errors.grpc_code(KeyError("x")) is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FieldError.invalid("a.b", "x\n", "bad"), 'a.b: Invalid value: "x\\n": bad'),
        (FieldError.invalid("a", True, "bad"), "a: Invalid value: true: bad"),
        (FieldError.invalid("a", {"b": 1}, "bad"), 'a: Invalid value: {"b":1}: bad'),
        (FieldError.duplicate("a[1]", "x"), 'a[1]: Duplicate value: "x"'),
        (FieldError.too_long("a", 63), "a: Too long: may not be more than 63 bytes"),
        (FieldError.too_many("a", 5, 1), "a: Too many: 5: must have at most 1 item"),
        (FieldError.forbidden("a", "no"), "a: Forbidden: no"),
        (FieldError.not_found("a", "x"), 'a: Not found: "x"'),
    ],
)
def test_field_errors_read_as_in_kubernetes(error: FieldError, text: str) -> None:
    assert str(error) == text
