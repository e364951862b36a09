"""Server-side apply: what is owned, what merges, what conflicts, what is let go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.apps.v1.apps_pb2 import Deployment
from tiphys.api.core.v1.node_pb2 import Node
from tiphys_apimachinery.errors import BadRequest, Conflict
from tiphys_apimachinery.patch import field_set
from tiphys_apimachinery.patch.apply import compare, fields_of, merge
from tiphys_apimachinery.patch.managed_fields import APPLY, LAST_APPLIED, UPDATE, Writer, applied, updated
from tiphys_apimachinery.patch.typed import shape_of

SHAPE = shape_of(Deployment.DESCRIPTOR)
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def writer(manager: str, operation: str = APPLY, now: str = NOW, subresource: str = "") -> Writer:
    return Writer(manager, operation, "apps/v1", now, subresource)


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def pods(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(containers)}}


def apply(live: Any, config: Any, manager: str = "ann", *, force: bool = False, now: str = NOW) -> dict[str, Any]:
    return applied(live, config, SHAPE, writer(manager, now=now), force=force)


def edit(
    old: Any, new: dict[str, Any], manager: str = "bob", *, now: str = NOW, subresource: str = ""
) -> dict[str, Any]:
    entries = updated(old, new, SHAPE, writer(manager, UPDATE, now, subresource))
    return new | {"metadata": new["metadata"] | {"managedFields": entries}}


def owners(obj: Any) -> dict[str, list[str]]:
    return {
        f"{entry['manager']}/{entry['operation']}": sorted(
            field_set.shown(path) for path in field_set.decode(entry["fieldsV1"])
        )
        for entry in obj["metadata"]["managedFields"]
    }


def test_A30_a_configuration_is_owned_leaf_by_leaf_and_item_by_item() -> None:
    obj = apply(
        None, deployment(replicas=2, template=pods({"name": "c", "image": "i", "ports": [{"containerPort": 80}]}))
    )
    assert owners(obj) == {
        "ann/Apply": [
            ".spec.replicas",
            '.spec.template.spec.containers[name="c"]',
            '.spec.template.spec.containers[name="c"].image',
            '.spec.template.spec.containers[name="c"].name',
            '.spec.template.spec.containers[name="c"].ports[containerPort=80,protocol="TCP"]',
            '.spec.template.spec.containers[name="c"].ports[containerPort=80,protocol="TCP"].containerPort',
        ]
    }


def test_A30_two_managers_and_replicas_one_keeps_them() -> None:
    """The autoscaler takes replicas over; the one who applied them no longer names them, and all is well."""
    first = apply(None, deployment(replicas=3, paused=True))
    scaled = edit(
        first, first | {"spec": first["spec"] | {"replicas": 7}}, "autoscaler", now=LATER, subresource="scale"
    )
    assert owners(scaled) == {"ann/Apply": [".spec.paused"], "autoscaler/Update": [".spec.replicas"]}
    with pytest.raises(Conflict) as refused:
        apply(scaled, deployment(replicas=3, paused=True))
    assert str(refused.value) == (
        'Apply failed with 1 conflict: conflict with "autoscaler" with subresource "scale" using apps/v1'
        " at 2026-01-02T00:00:00Z: .spec.replicas"
    )
    status = refused.value.to_status()
    assert [(cause.reason, cause.field) for cause in status.details.causes] == [
        ("FieldManagerConflict", ".spec.replicas")
    ]
    assert apply(scaled, deployment(paused=True))["spec"] == {"replicas": 7, "paused": True}


def test_A30_force_takes_over() -> None:
    scaled = edit(apply(None, deployment(replicas=3)), deployment(replicas=7), "scaler")
    forced = apply(scaled, deployment(replicas=3), force=True)
    assert forced["spec"]["replicas"] == 3
    assert owners(forced) == {"ann/Apply": [".spec.replicas"]}


def test_A30_the_same_value_is_shared_and_stays_until_the_last_owner_lets_go() -> None:
    shared = apply(apply(None, deployment(replicas=3)), deployment(replicas=3), "eve")
    assert set(owners(shared)) == {"ann/Apply", "eve/Apply"}
    one_left = apply(shared, deployment())
    assert one_left["spec"] == {"replicas": 3}
    assert "replicas" not in apply(one_left, deployment(), "eve").get("spec", {})


def test_A30_several_conflicts_name_each_manager_with_its_fields() -> None:
    live = apply(apply(None, deployment(replicas=1, paused=True)), deployment(minReadySeconds=5), "eve")
    with pytest.raises(Conflict) as refused:
        apply(live, deployment(replicas=2, paused=False, minReadySeconds=6), "zoe")
    assert str(refused.value) == (
        'Apply failed with 3 conflicts: conflicts with "ann":\n- .spec.paused\n- .spec.replicas\n'
        'conflict with "eve": .spec.minReadySeconds'
    )


def test_A30_an_item_let_go_leaves_with_the_defaults_in_it() -> None:
    first = apply(None, deployment(template=pods({"name": "a", "image": "i"}, {"name": "b", "image": "i"})))
    for container in first["spec"]["template"]["spec"]["containers"]:
        container["terminationMessagePath"] = "/dev/termination-log"
    second = apply(first, deployment(template=pods({"name": "b", "image": "i"})))
    assert [c["name"] for c in second["spec"]["template"]["spec"]["containers"]] == ["b"]


def test_A30_an_item_in_which_another_owns_a_field_stays() -> None:
    first = apply(None, deployment(template=pods({"name": "a", "image": "i"}, {"name": "b", "image": "i"})))
    other = deployment(template=pods({"name": "a", "workingDir": "/x"}))
    shared = apply(first, other, "eve")
    left = apply(shared, deployment(template=pods({"name": "b", "image": "i"})))
    assert left["spec"]["template"]["spec"]["containers"] == [
        {"name": "a", "workingDir": "/x"},
        {"name": "b", "image": "i"},
    ]


def test_A30_a_struct_that_loses_its_last_member_goes() -> None:
    first = apply(None, deployment(paused=True, strategy={"rollingUpdate": {"maxSurge": 1}}))
    assert apply(first, deployment(paused=True))["spec"] == {"paused": True}


def test_A30_what_was_there_before_the_first_apply_has_an_owner() -> None:
    live = deployment(replicas=1, paused=True)
    with pytest.raises(Conflict, match='conflict with "before-first-apply" using apps/v1'):
        apply(live, deployment(replicas=2))
    kept = apply(apply(live, deployment(replicas=2), force=True), deployment())
    assert kept["spec"] == {"paused": True}


def test_A30_applying_twice_changes_nothing_not_even_the_time() -> None:
    config = deployment(replicas=2, template=pods({"name": "c", "image": "i"}))
    first = apply(None, config)
    assert apply(first, config, now=LATER) == first


def test_A30_kubectl_is_in_no_conflict_with_what_it_applied_on_the_clients_side() -> None:
    config = deployment(replicas=2)
    text = '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":2}}'
    live = deployment(replicas=2, paused=True)
    live["metadata"] = live["metadata"] | {"annotations": {LAST_APPLIED: text}}
    live = edit(None, live, "kubectl-client-side-apply")
    with pytest.raises(Conflict):
        apply(live, deployment(replicas=4), "ann")
    taken = apply(live, deployment(replicas=4), "kubectl")
    assert taken["spec"]["replicas"] == 4
    assert '"replicas":4' in taken["metadata"]["annotations"][LAST_APPLIED]
    assert config["spec"]["replicas"] == 2


def test_A30_an_update_that_removes_a_field_takes_it_from_its_owner() -> None:
    first = apply(None, deployment(replicas=2, paused=True))
    without_paused = edit(first, deployment(replicas=2) | {"metadata": first["metadata"]})
    assert owners(without_paused) == {"ann/Apply": [".spec.replicas"]}


def test_A30_a_client_may_hand_fields_over_or_drop_all_owners() -> None:
    first = edit(None, deployment(replicas=2), "kubectl-client-side-apply")
    entry = first["metadata"]["managedFields"][0] | {"manager": "kubectl", "operation": "Apply"}
    handed = first | {"metadata": first["metadata"] | {"managedFields": [entry]}}
    assert owners(edit(first, handed, now=LATER)) == {"kubectl/Apply": [".spec.replicas"]}
    dropped = first | {"metadata": first["metadata"] | {"managedFields": [{}]}}
    assert edit(first, dropped)["metadata"]["managedFields"] == []


def test_A30_many_updaters_are_folded_into_one() -> None:
    obj = edit(None, deployment(replicas=0))
    for number in range(15):
        labels = obj["metadata"].get("labels", {}) | {f"l{number}": "x"}
        obj = edit(
            obj,
            obj | {"metadata": obj["metadata"] | {"labels": labels}},
            f"m{number}",
            now=f"2026-01-{number + 1:02}T00:00:00Z",
        )
    entries = owners(obj)
    assert len(entries) == 10
    assert "ancient-changes/Update" in entries
    assert sum(len(paths) for paths in entries.values()) == 16


@pytest.mark.parametrize(
    ("containers", "text"),
    [
        pytest.param([{"name": "a"}, {"name": "a"}], "duplicate entries for key", id="twice"),
        pytest.param([{"image": "i"}], "omits all key fields", id="no key"),
    ],
)
def test_A30_items_that_cannot_be_told_apart_are_refused(containers: list[Any], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        apply(None, deployment(template=pods(*containers)))


@pytest.mark.parametrize(
    ("live", "config", "merged"),
    [
        pytest.param("abc", "b", "abc", id="named ones stay in place"),
        pytest.param("abc", "ca", "bca", id="order of the configuration"),
        pytest.param("ab", "xaby", "xaby", id="new ones where they are named"),
        pytest.param("ab", "cd", "abcd", id="strangers first"),
        pytest.param("axb", "ba", "xba", id="neighbours"),
    ],
)
def test_A30_order_of_merged_items(live: str, config: str, merged: str) -> None:
    def of(names: str) -> Any:
        return deployment(template=pods(*({"name": name} for name in names)))

    result = merge(of(live), of(config), SHAPE)
    assert "".join(c["name"] for c in result["spec"]["template"]["spec"]["containers"]) == merged


def test_A30_atomic_lists_have_one_owner_and_sets_one_each_value() -> None:
    fields = {
        field_set.shown(path) for path in fields_of(deployment(template=pods({"name": "c", "args": ["a", "b"]})), SHAPE)
    }
    assert '.spec.template.spec.containers[name="c"].args' in fields
    node = {"metadata": {"finalizers": ["x"]}, "spec": {"podCIDRs": ["10.0.0.0/24"]}}
    assert {field_set.shown(path) for path in fields_of(node, shape_of(Node.DESCRIPTOR))} == {
        '.metadata.finalizers[="x"]',
        '.spec.podCIDRs[="10.0.0.0/24"]',
    }


STEPS = st.one_of(
    st.text("abc", min_size=1, max_size=2).map(field_set.member_step),
    st.dictionaries(
        st.sampled_from(["name", "port"]), st.one_of(st.integers(0, 65535), st.text(max_size=3)), min_size=1
    ).map(field_set.key_step),
    st.text(max_size=3).map(field_set.value_step),
)
SETS = st.frozensets(st.lists(STEPS, min_size=1, max_size=4).map(tuple), max_size=8)


@given(SETS)
def test_a_set_of_fields_survives_its_form_on_the_wire(fields: field_set.FieldSet) -> None:
    assert field_set.decode(field_set.encode(fields)) == fields


CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abcd")}, optional={"image": st.sampled_from("xy"), "tty": st.booleans()}
    ),
    unique_by=lambda item: item["name"],
    min_size=1,
    max_size=3,
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 3),
        "paused": st.booleans(),
        "template": CONTAINERS.map(lambda found: pods(*found)),
    },
).map(lambda spec: deployment(**spec))


@given(SPECS, SPECS, SPECS)
def test_A30_applying_is_repeatable_and_leaves_exactly_what_is_owned(first: Any, second: Any, other: Any) -> None:
    base = apply(apply(None, copy.deepcopy(other), "eve"), first, force=True)
    result = apply(base, second, force=True)
    assert apply(result, second, force=True, now=LATER) == result
    named = set(fields_of(second, SHAPE))
    changes = compare(merge(result, second, SHAPE), result, SHAPE)
    assert changes.is_same, "every field of the configuration has its value"
    held = {path for entry in result["metadata"]["managedFields"] for path in field_set.decode(entry["fieldsV1"])}
    found = {path for path in fields_of(result, SHAPE) if path[0] == "f:spec" and len(path) > 2}
    assert {path for path in found if path not in held} == set(), "nothing is left that nobody owns"
    assert {path for path in named if path[0] == "f:spec"} <= held
