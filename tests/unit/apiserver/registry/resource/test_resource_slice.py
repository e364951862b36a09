"""Rules of slices, in Kubernetes' words."""

from __future__ import annotations

import pytest

from tests.unit.apiserver.fake_objects import read
from tests.unit.apiserver.registry.bench import create_faults, strategy_of, update_faults
from tiphys.api.resource.v1.resource_pb2 import ResourceSlice

COUNTERS = "{name: c, counters: {m: {value: 1}}}"
POOL = "pool: {name: n1, generation: 1, resourceSliceCount: 1}"


def slice_of(devices: str = "{name: a}", where: str = "nodeName: n1", pool: str = POOL, rest: str = "") -> str:
    return f"{{metadata: {{name: s}}, spec: {{driver: d.example, {pool}, {where}, devices: [{devices}]{rest}}}}}"


def device(facts: str) -> str:
    return slice_of(f"{{name: a, {facts}}}")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(slice_of(), "", id="node's"),
        pytest.param(slice_of(where="allNodes: true"), "", id="of all nodes"),
        pytest.param(slice_of(where="nodeName: n1, allNodes: true"), "exactly one of `nodeName`", id="two ways"),
        pytest.param(slice_of(where="allNodes: false"), "must be either unset or set to true", id="not all nodes"),
        pytest.param(slice_of().replace("nodeName: n1, ", ""), "spec: Required value: exactly one of", id="nowhere"),
        pytest.param(slice_of("{name: a}, {name: a}"), "spec.devices[1].name: Duplicate value", id="twice"),
        pytest.param(slice_of("{name: A_1}"), "spec.devices[0].name: Invalid value", id="name"),
        pytest.param(slice_of("{name: a, nodeName: n2}"), "`perDeviceNodeSelection` must be set", id="own node"),
        pytest.param(slice_of("{name: a, nodeName: n2}", "perDeviceNodeSelection: true"), "", id="node for itself"),
        pytest.param(slice_of(where="perDeviceNodeSelection: true"), "spec.devices[0]: Required", id="none for itself"),
        pytest.param(slice_of(pool=POOL.replace("Count: 1", "Count: 0")), "resourceSliceCount", id="no slices"),
        pytest.param(slice_of(pool=POOL.replace("name: n1", "name: a//b")), "spec.pool.name", id="pool"),
        pytest.param(device("attributes: {model: {string: a}, a.example/numa: {int: 1}}"), "", id="facts"),
        pytest.param(device("attributes: {model: {}}"), "exactly one value must be specified", id="no value"),
        pytest.param(device("attributes: {model: {int: 1, bool: true}}"), "exactly one value", id="two values"),
        pytest.param(device("attributes: {v: {version: '1'}}"), "compatible with semver.org", id="version"),
        pytest.param(device("attributes: {1a: {int: 1}}"), "spec.devices[0].attributes[1a]", id="attribute's name"),
        pytest.param(device(f"attributes: {{s: {{string: {'x' * 65}}}}}"), "may not be more than 64", id="long"),
        pytest.param(
            slice_of(
                rest=", sharedCounters: [{name: c, counters: {m: {value: 1}}}, {name: c, counters: {m: {value: 1}}}]"
            ),
            "spec.sharedCounters[1].name: Duplicate value",
            id="counters twice",
        ),
    ],
)
def test_C28_slices_say_what_is_wrong(text: str, fault: str) -> None:
    found = create_faults(ResourceSlice, text)
    assert bool(found) == bool(fault), found
    assert fault in "\n".join(found)


def test_C28_a_slice_has_at_most_128_devices() -> None:
    def many(count: int) -> str:
        return slice_of(", ".join(f"{{name: d-{number}}}" for number in range(count)))

    assert create_faults(ResourceSlice, many(128)) == []
    assert "must have at most 128 items" in "\n".join(create_faults(ResourceSlice, many(129)))


@pytest.mark.parametrize(
    ("after", "field"),
    [
        pytest.param(slice_of(where="nodeName: n2"), "spec.nodeName", id="node"),
        pytest.param(slice_of().replace("d.example", "e.example"), "spec.driver", id="driver"),
        pytest.param(slice_of(pool=POOL.replace("name: n1", "name: n2")), "spec.pool.name", id="pool"),
    ],
)
def test_C28_whose_slice_it_is_never_changes(after: str, field: str) -> None:
    found = "\n".join(update_faults(ResourceSlice, slice_of(), after))
    assert field in found
    assert "immutable" in found


def test_C28_slices_are_selected_by_node_and_driver() -> None:
    fields = strategy_of(ResourceSlice).selectable_fields(read(ResourceSlice, slice_of()))
    assert (fields["spec.nodeName"], fields["spec.driver"]) == ("n1", "d.example")
