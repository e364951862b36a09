"""What pods ask of nodes: labels, terms of affinity, and the one field."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.node_selector import node_selection

LABELS = {"zone": "a", "cores": "8"}


def asks(*terms: list[tuple[str, str, list[str]]], labels: dict[str, str] | None = None, empty: bool = False) -> Any:
    """A pod that asks for one of these terms; a key that begins with a dot is a field."""
    spec = pod_pb2.PodSpec()
    spec.nodeSelector.update(labels or {})
    required = spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    if not terms and not empty:
        spec.ClearField("affinity")
    for term in terms:
        made = required.nodeSelectorTerms.add()
        for key, operator, values in term:
            where = made.matchFields if key.startswith(".") else made.matchExpressions
            where.add(key=key.removeprefix("."), operator=operator, values=values)
    if empty:
        required.SetInParent()
    return spec


@pytest.mark.parametrize(
    ("spec", "matches"),
    [
        pytest.param(asks(), True, id="nothing"),
        pytest.param(asks(labels={"zone": "a"}), True, id="a label"),
        pytest.param(asks(labels={"zone": "b"}), False, id="another value"),
        pytest.param(asks([("zone", "In", ["a", "b"])]), True, id="one of"),
        pytest.param(asks([("zone", "NotIn", ["a"])]), False, id="none of"),
        pytest.param(asks([("disk", "NotIn", ["a"])]), True, id="none of, without the label"),
        pytest.param(asks([("zone", "Exists", [])]), True, id="the label is there"),
        pytest.param(asks([("disk", "DoesNotExist", [])]), True, id="the label is not there"),
        pytest.param(asks([("cores", "Gt", ["7"])]), True, id="more than"),
        pytest.param(asks([("cores", "Lt", ["8"])]), False, id="less than"),
        pytest.param(asks([("zone", "In", ["a"]), ("cores", "Gt", ["9"])]), False, id="all of a term"),
        pytest.param(asks([("cores", "Gt", ["9"])], [("zone", "In", ["a"])]), True, id="one of the terms"),
        pytest.param(asks([(".metadata.name", "In", ["n1"])]), True, id="the name"),
        pytest.param(asks([(".metadata.name", "NotIn", ["n1"])]), False, id="any name but this"),
        pytest.param(asks([(".metadata.name", "In", ["n1"])], labels={"zone": "b"}), False, id="labels and terms"),
        pytest.param(asks(empty=True), False, id="no term is no node"),
        pytest.param(asks([]), False, id="nor is a term that says nothing"),
        pytest.param(asks([("cores", "Gt", ["many"])], [("zone", "Exists", [])]), True, id="nonsense in one term"),
        pytest.param(asks([("zone", "Like", ["a"])]), False, id="an operator that nobody knows"),
        pytest.param(asks([(".spec.nodeName", "In", ["n1"])]), False, id="a field that nobody knows"),
        pytest.param(asks([(".metadata.name", "Exists", [])]), False, id="an operator that is not for fields"),
    ],
)
def test_a_node_is_chosen(spec: pod_pb2.PodSpec, matches: bool) -> None:
    assert node_selection(spec).matches("n1", LABELS) is matches
