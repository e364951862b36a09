"""What an audit event says of a batch: which object each of its bodies was for."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.audit.bodies import Bodies, Wire

_OPTIONS = {"kind": "DeleteOptions", "apiVersion": "v1"}


@pytest.mark.parametrize(
    ("sent", "items"),
    [
        pytest.param(
            Wire(None, [b'{"a":1}', b'{"b":2}'], names=["x", "y"]),
            [{"name": "x", "body": {"a": 1}}, {"name": "y", "body": {"b": 2}}],
            id="a patch for each",
        ),
        pytest.param(
            Wire(meta_pb2.DeleteOptions, (b"",), names=["x", "y"]),
            [{"name": "x", "body": _OPTIONS}, {"name": "y", "body": _OPTIONS}],
            id="options for all",
        ),
        pytest.param(Wire(None, [], names=[]), [], id="nothing"),
    ],
)
def test_batch_names_the_object_of_each_body(sent: Wire, items: list[Any]) -> None:
    assert Bodies(load_default()).value(sent) == {"kind": "List", "apiVersion": "v1", "items": items}
