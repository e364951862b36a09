"""Whether a pod can have what it newly asks for, and what is kept of it on the disk."""

from __future__ import annotations

import pytest

from tests.unit.kubelet.resizing.builders import pod_of
from tiphys_apimachinery.pod_resources import pod_amounts
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.pod_spec import SOURCE_ANNOTATION
from tiphys_kubelet.resizing import allocation as rules

NODE = {"cpu": Quantity.parse("4"), "memory": Quantity.parse("1Gi")}


@pytest.mark.parametrize(
    ("wanted", "others", "reason", "text"),
    [
        pytest.param("2 512Mi", ["1 256Mi"], "", "", id="there is room"),
        pytest.param("3 1Mi", ["1 256Mi"], "", "", id="to the last bit"),
        pytest.param(
            "3500m 1Mi",
            ["1 256Mi"],
            "Deferred",
            "Node didn't have enough resource: cpu, requested: 3500, used: 1000, capacity: 4000",
            id="others have it",
        ),
        pytest.param(
            "1 1Gi",
            ["1 256Mi"],
            "Deferred",
            "Node didn't have enough resource: memory, requested: 1073741824, used: 268435456, capacity: 1073741824",
            id="others have the memory",
        ),
        pytest.param(
            "5 1Mi",
            [],
            "Infeasible",
            "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000",
            id="cpu",
        ),
        pytest.param(
            "5 2Gi",
            [],
            "Infeasible",
            "Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824",
            id="memory is told first",
        ),
    ],
)
def test_D34_a_resize_is_granted_deferred_or_infeasible(wanted: str, others: list[str], reason: str, text: str) -> None:
    taken = [pod_amounts(pod_of(a=other).spec, "requests") for other in others]
    refusal = rules.judge(pod_of(a=wanted), taken, NODE)
    assert (reason, text) == ("", "") if refusal is None else (refusal.reason, refusal.message) == (reason, text)


def test_D34_a_static_pod_is_never_resized() -> None:
    pod = pod_of(a="1 1Mi")
    pod.metadata.annotations[SOURCE_ANNOTATION] = "file"
    refusal = rules.judge(pod, [], NODE)
    assert refusal is not None
    assert refusal.message == "In-place resize of static-pods is not supported"


def test_the_checkpoint_is_read_as_it_was_written() -> None:
    allocations = {"one": rules.allocation_of(pod_of(a="1 64Mi / 2 128Mi", b="- -")), "two": {}}
    assert rules.decode(rules.encode(allocations)) == allocations


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'{"Data": {}, "Checksum": 1}', b'{"Data": {"u": {"c": {"limits": 3}}}, "Checksum": 0}'],
    ids=["empty", "no members", "a list", "bad checksum", "bad types"],
)
def test_a_spoilt_checkpoint_is_known_as_such(content: bytes) -> None:
    with pytest.raises(rules.CorruptState):
        rules.decode(content)


def test_equal_amounts_in_other_words_are_no_resize() -> None:
    pod = pod_of(a="1 64Mi / 1 64Mi")
    assert not rules.is_changed(pod, rules.allocation_of(pod_of(a="1000m 65536Ki / 1000m 65536Ki")))
    assert rules.with_allocation(pod, rules.allocation_of(pod)) is pod


def test_the_allocation_replaces_what_the_spec_is_ahead_with() -> None:
    made = rules.with_allocation(pod_of(a="2 64Mi"), rules.allocation_of(pod_of(a="1 64Mi")))
    assert made.spec.containers[0].resources.requests["cpu"].string == "1"


def test_what_an_earlier_life_told_in_the_status_is_taken_on() -> None:
    pod = pod_of(a="2 64Mi / 2 64Mi")
    assert rules.reported_allocation(pod) is None
    status = pod.status.containerStatuses.add(name="a")
    status.allocatedResources["cpu"].string = status.resources.limits["cpu"].string = "1"
    status.allocatedResources["memory"].string = status.resources.limits["memory"].string = "64Mi"
    told = rules.reported_allocation(pod)
    assert told is not None
    assert rules.allocation_of(pod_of(a="1 64Mi / 1 64Mi")) == told


def test_changes_are_named_for_the_metric() -> None:
    container = pod_of(a="2 - / 1 1Gi").spec.containers[0]
    before = pod_of(a="1 1Mi / 2 -").spec.containers[0].resources
    assert set(rules.changes(container, before)) == {
        ("cpu", "requests", "increase"),
        ("memory", "requests", "remove"),
        ("cpu", "limits", "decrease"),
        ("memory", "limits", "add"),
    }
