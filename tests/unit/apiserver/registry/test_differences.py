"""What an update really changes: differences in form are none, all others are found however deep they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import read
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apiserver.registry.differences import settle

_POD = """
metadata: {name: p, labels: {a: b}}
spec:
  nodeName: n
  containers: [{name: c, image: i, resources: {limits: {cpu: "1"}}}]
status:
  phase: Running
  conditions: [{type: Ready, status: "True", lastTransitionTime: "2026-11-21T10:00:00Z"}]
  containerStatuses: [{name: c, state: {running: {startedAt: "2026-11-21T10:00:00Z"}}, started: true}]
"""


def pod() -> Any:
    return read(Pod, _POD)


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(obj: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            obj = obj[int(name)] if name.isdigit() else getattr(obj, name)
        setattr(obj, last, value)

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda new: None, [], id="nothing"),
        pytest.param(_set("status.phase", "Failed"), ["status"], id="a text"),
        pytest.param(_set("status.conditions.0.status", "False"), ["status"], id="a text in a list"),
        pytest.param(lambda new: new.status.conditions.add(type="Other"), ["status"], id="one more item"),
        pytest.param(
            _set("status.conditions.0.lastTransitionTime.seconds", 1), ["status"], id="a time, which is a text in JSON"
        ),
        pytest.param(
            _set("status.containerStatuses.0.state.running.startedAt.seconds", 1), ["status"], id="deep in a choice"
        ),
        pytest.param(_set("status.containerStatuses.0.started", False), ["status"], id="a pointer to false"),
        pytest.param(
            lambda new: new.status.containerStatuses[0].ClearField("started"), ["status"], id="a pointer that is gone"
        ),
        pytest.param(lambda new: new.metadata.labels.update({"a": "c"}), ["metadata"], id="a label"),
        pytest.param(lambda new: new.spec.securityContext.SetInParent(), ["spec"], id="a pointer to an empty struct"),
        pytest.param(
            lambda new: (
                new.spec.containers[0]
                .resources.limits["cpu"]
                .CopyFrom(type(new.spec.containers[0].resources.limits["cpu"])(string="2"))
            ),
            ["spec"],
            id="a quantity",
        ),
        pytest.param(
            lambda new: (_set("spec.nodeName", "m")(new), _set("status.phase", "Failed")(new)),
            ["spec", "status"],
            id="two parts",
        ),
    ],
)
def test_changes_are_named(change: Callable[[Any], None], named: list[str]) -> None:
    new = pod()
    change(new)
    assert settle(new, pod()) == named


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda new: new.status.containerStatuses[0].lastState.SetInParent(), id="an empty struct"),
        pytest.param(lambda new: new.metadata.creationTimestamp.SetInParent(), id="a time without seconds"),
    ],
)
def test_what_only_looks_different_becomes_what_is_stored(change: Callable[[Any], None]) -> None:
    new = pod()
    change(new)
    assert new != pod()
    assert settle(new, pod()) == []
    assert new == pod()
