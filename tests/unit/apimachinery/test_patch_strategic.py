"""Strategic merge patch follows the schema's merge keys and the directives of the patch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import config_map_pb2, node_pb2, pod_pb2, service_pb2
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.patch.strategic import apply_patch


def _containers(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "image": name} for name in names]


def _pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": spec}


_CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "list merges by key": (
        {"containers": _containers("a", "b")},
        {"containers": [{"name": "b", "image": "x"}]},
        {"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "x"}]},
    ),
    "new item is added": (
        {"containers": _containers("a")},
        {"containers": [{"name": "b"}]},
        {"containers": [{"name": "b"}, {"name": "a", "image": "a"}]},
    ),
    "item is deleted": (
        {"containers": _containers("a", "b")},
        {"containers": [{"name": "a", "$patch": "delete"}]},
        {"containers": _containers("b")},
    ),
    "list is replaced on request": (
        {"containers": _containers("a", "b")},
        {"containers": [{"$patch": "replace"}, {"name": "c"}]},
        {"containers": [{"name": "c"}]},
    ),
    "object is replaced on request": (
        {"securityContext": {"runAsUser": 1, "runAsGroup": 2}},
        {"securityContext": {"$patch": "replace", "runAsUser": 3}},
        {"securityContext": {"runAsUser": 3}},
    ),
    "object is emptied on request": (
        {"securityContext": {"runAsUser": 1}},
        {"securityContext": {"$patch": "delete"}},
        {"securityContext": {}},
    ),
    "null removes": ({"nodeName": "n", "priority": 1}, {"nodeName": None}, {"priority": 1}),
    "list without strategy is replaced": (
        {"tolerations": [{"key": "a"}]},
        {"tolerations": [{"key": "b"}]},
        {"tolerations": [{"key": "b"}]},
    ),
    "nested list merges by its own key": (
        {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 1}]}]},
        {
            "containers": [
                {"name": "a", "env": [{"name": "Y", "value": "2"}], "ports": [{"containerPort": 1, "name": "p"}]}
            ]
        },
        {
            "containers": [
                {
                    "name": "a",
                    "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
                    "ports": [{"containerPort": 1, "name": "p"}],
                }
            ]
        },
    ),
    "order is set": (
        {"containers": _containers("a", "b", "c")},
        {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]},
        {"containers": _containers("c", "b", "a")},
    ),
    "order is set together with items": (
        {"containers": _containers("a", "b")},
        {"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "containers": _containers("c")},
        {"containers": _containers("b", "c", "a")},
    ),
    "unnamed item keeps its place": (
        {"containers": _containers("a", "sidecar", "b")},
        {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": _containers("a")},
        {"containers": _containers("a", "sidecar", "b")},
    ),
    "keys are retained": (
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]},
        {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]},
    ),
    "directives in new parts are not stored": (
        {},
        {
            "containers": [{"name": "a", "$setElementOrder/env": [{"name": "X"}], "env": [{"name": "X"}]}],
            "$setElementOrder/containers": [{"name": "a"}],
        },
        {"containers": [{"name": "a", "env": [{"name": "X"}]}]},
    ),
    "type change takes the patch": ({"nodeSelector": "x"}, {"nodeSelector": {"a": "b"}}, {"nodeSelector": {"a": "b"}}),
}


@pytest.mark.parametrize(("spec", "patch", "expected"), _CASES.values(), ids=_CASES)
def test_A28_patch_of_a_pod_spec(spec: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    target, change = _pod(**spec), {"spec": patch}
    kept = copy.deepcopy((target, change))
    assert apply_patch(pod_pb2.Pod, target, change)["spec"] == expected
    assert (target, change) == kept


def test_values_merge_into_a_primitive_list_and_leave_it_on_request() -> None:
    target = {"metadata": {"finalizers": ["a", "b"]}}
    added = apply_patch(pod_pb2.Pod, target, {"metadata": {"finalizers": ["c"]}})
    assert sorted(added["metadata"]["finalizers"]) == ["a", "b", "c"]
    removed = apply_patch(pod_pb2.Pod, target, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})
    assert removed["metadata"]["finalizers"] == ["b"]


def test_strategy_of_a_deployment_drops_what_is_not_retained() -> None:
    target = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert apply_patch(apps_pb2.Deployment, target, patch)["spec"]["strategy"] == {"type": "Recreate"}


def test_conditions_of_a_status_merge_by_type() -> None:
    target = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "Disk"}]}}
    patch = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert apply_patch(node_pb2.Node, target, patch)["status"]["conditions"] == [
        {"type": "Ready", "status": "True", "reason": "x"},
        {"type": "Disk"},
    ]


def test_keys_of_a_map_are_no_directives_of_the_schema() -> None:
    target = {"data": {"a": "1", "b": "2"}}
    assert apply_patch(config_map_pb2.ConfigMap, target, {"data": {"a": None, "c": "3"}}) == {
        "data": {"b": "2", "c": "3"}
    }


@pytest.mark.parametrize(
    ("patch", "part"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "does not contain declared merge key: name"),
        ({"spec": {"containers": ["x"]}}, "merges by name"),
        ({"spec": {"$patch": "explode"}}, "unknown patch type found: explode"),
        ({"spec": {"containers": [{"name": "a", "$patch": "explode"}]}}, "unknown patch type"),
        ({"spec": {"$retainKeys": ["a"], "nodeName": "x"}}, "nodeName"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}}, "list of values"),
    ],
)
def test_contradiction_is_a_bad_request(patch: dict[str, Any], part: str) -> None:
    with pytest.raises(BadRequest) as caught:
        apply_patch(pod_pb2.Pod, _pod(containers=_containers("a")), patch)
    assert part in str(caught.value)


_PORTS = st.lists(
    st.fixed_dictionaries({"port": st.integers(1, 6), "name": st.sampled_from("abc")}),
    max_size=5,
    unique_by=lambda p: p["port"],
)


@given(_PORTS, _PORTS)
def test_patch_can_be_applied_twice(before: list[dict[str, Any]], patch: list[dict[str, Any]]) -> None:
    once = apply_patch(service_pb2.Service, {"spec": {"ports": before}}, {"spec": {"ports": patch}})
    assert apply_patch(service_pb2.Service, once, {"spec": {"ports": patch}}) == once
    by_port = {port["port"]: port for port in [*before, *patch]}
    assert {port["port"]: port for port in once["spec"]["ports"]} == by_port


@given(_PORTS, st.permutations([1, 2, 3, 4, 5, 6]))
def test_order_directive_is_followed(ports: list[dict[str, Any]], order: list[int]) -> None:
    patch = {"spec": {"$setElementOrder/ports": [{"port": port} for port in order]}}
    result = apply_patch(service_pb2.Service, {"spec": {"ports": ports}}, patch)["spec"]["ports"]
    assert [port["port"] for port in result] == [port for port in order if port in {p["port"] for p in ports}]


_CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["Ready", "Initialized", "PodScheduled"])},
        optional={"status": st.sampled_from(["True", "False"]), "reason": st.sampled_from(["a", None])},
    ),
    max_size=4,
)


@given(before=_CONDITIONS, patch=_CONDITIONS)
def test_list_named_in_its_order_merges_as_one_whose_order_is_said(
    before: list[dict[str, Any]], patch: list[dict[str, Any]]
) -> None:
    said = [{"type": item["type"]} for item in patch]
    whole = {"status": {"conditions": [{key: value for key, value in item.items() if value} for item in before]}}
    quick = apply_patch(pod_pb2.Pod, copy.deepcopy(whole), {"status": {"conditions": patch}})
    ordered = {"status": {"$setElementOrder/conditions": said, "conditions": patch}}
    assert quick == apply_patch(pod_pb2.Pod, copy.deepcopy(whole), ordered)


@pytest.mark.parametrize(
    ("before", "patch", "expected"),
    [
        pytest.param([("a", 1), ("b", 2)], [("a", 3), ("b", 4)], [("a", 3), ("b", 4)], id="each once and in order"),
        pytest.param([("a", 1), ("a", 2)], [("a", 3), ("a", 4)], [("a", 4), ("a", 2)], id="one of them twice"),
        pytest.param([("a", 1), ("b", 2)], [("b", 4), ("a", 3)], [("b", 4), ("a", 3)], id="in another order"),
        pytest.param([], [], [], id="none"),
    ],
)
def test_items_are_merged_with_those_of_their_key(
    before: list[tuple[str, int]], patch: list[tuple[str, int]], expected: list[tuple[str, int]]
) -> None:
    def containers(pairs: list[tuple[str, int]]) -> dict[str, Any]:
        return {"spec": {"containers": [{"name": name, "tty": number} for name, number in pairs]}}

    assert apply_patch(pod_pb2.Pod, containers(before), containers(patch)) == containers(expected)
