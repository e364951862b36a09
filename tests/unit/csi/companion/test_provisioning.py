from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tiphys.api.core.v1 import persistent_volume_claim_pb2, persistent_volume_pb2
from tiphys_apimachinery.persistent_volumes import ClaimView, ClassView, VolumeView, claim_view, volume_view
from tiphys_csi.companion.provisioning import (
    CLAIM_FINALIZER,
    VOLUME_FINALIZER,
    ClaimStep,
    Here,
    VolumeStep,
    plan_claim,
    plan_volume,
)

NOW = ClassView(name="now", provisioner="d", waits_for_consumer=False, topologies=())
LATER = replace(NOW, name="later", waits_for_consumer=True)
IN_ZONE = replace(NOW, topologies=(((("zone", ("z1", "z2"))),),))
N1 = Here(node="n1", has_topology=True, leads=False, segments={"zone": "z1"})
LEADER = Here(node="n1", has_topology=False, leads=True, segments={})
FOLLOWER = replace(LEADER, leads=False)


def claim(**changes: Any) -> ClaimView:
    made = claim_view(persistent_volume_claim_pb2.PersistentVolumeClaim())
    return replace(made, uid="u", provisioner="d", storage_class="now", **changes)


def marked(**changes: object) -> ClaimView:
    return claim(finalizers=(CLAIM_FINALIZER,), **changes)


@pytest.mark.parametrize(
    ("view", "storage_class", "here", "step"),
    [
        (claim(selected_node="n1"), LATER, N1, ClaimStep.PROVISION),
        (claim(selected_node="n2"), LATER, N1, ClaimStep.NOTHING),
        (claim(), LATER, N1, ClaimStep.NOTHING),
        (claim(), NOW, N1, ClaimStep.CHOOSE_NODE),
        (claim(), IN_ZONE, N1, ClaimStep.CHOOSE_NODE),
        (claim(), IN_ZONE, replace(N1, segments={"zone": "z3"}), ClaimStep.NOTHING),
        (claim(), NOW, LEADER, ClaimStep.PROVISION),
        (claim(), NOW, FOLLOWER, ClaimStep.NOTHING),
        (claim(), None, LEADER, ClaimStep.NOTHING),
        (claim(), replace(NOW, provisioner="other"), LEADER, ClaimStep.NOTHING),
        (claim(is_deleting=True), NOW, LEADER, ClaimStep.NOTHING),
        (marked(is_deleting=True), NOW, LEADER, ClaimStep.ABANDON),
        (marked(is_deleting=True), NOW, FOLLOWER, ClaimStep.NOTHING),
        (marked(is_deleting=True, selected_node="n2"), LATER, N1, ClaimStep.NOTHING),
        (claim(volume="pv"), NOW, LEADER, ClaimStep.NOTHING),
    ],
    ids=[
        "selected here",
        "selected elsewhere",
        "not yet selected",
        "immediate, of some node",
        "class allows the zone",
        "class forbids the zone",
        "leader",
        "follower",
        "class unknown",
        "class of another driver",
        "deleted before it began",
        "deleted after it began",
        "deleted, not ours",
        "deleted, begun elsewhere",
        "names a volume itself",
    ],
)
def test_step_of_a_claim_without_volume(
    view: ClaimView, storage_class: ClassView | None, here: Here, step: ClaimStep
) -> None:
    assert plan_claim(view, storage_class, here, has_volume=False) is step


@pytest.mark.parametrize(
    ("view", "step"),
    [
        (marked(), ClaimStep.NOTHING),
        (marked(volume="pvc-u", is_bind_completed=True), ClaimStep.FINISH),
        (marked(is_deleting=True), ClaimStep.FINISH),
        (claim(volume="pvc-u", is_bind_completed=True), ClaimStep.NOTHING),
    ],
    ids=["the binder is at work", "bound", "deleted before it was bound", "finished"],
)
def test_mark_goes_when_the_volume_is_known_and_the_binder_is_through(view: ClaimView, step: ClaimStep) -> None:
    assert plan_claim(view, NOW, LEADER, has_volume=True) is step


@pytest.mark.parametrize(
    ("view", "storage_class", "has_volume", "step"),
    [
        (claim(selected_node="n9"), NOW, False, ClaimStep.CHOOSE_NODE),
        (claim(selected_node="n9"), LATER, False, ClaimStep.RESCHEDULE),
        (marked(selected_node="n9", is_deleting=True), NOW, False, ClaimStep.FINISH),
        (marked(selected_node="n9"), NOW, True, ClaimStep.FINISH),
        (claim(selected_node="n9"), NOW, True, ClaimStep.NOTHING),
    ],
    ids=["immediate", "waiting", "deleted after it began", "volume known", "finished"],
)
def test_claim_of_a_node_that_is_gone_is_taken_over(
    view: ClaimView, storage_class: ClassView, has_volume: bool, step: ClaimStep
) -> None:
    assert plan_claim(view, storage_class, N1, has_volume=has_volume, is_node_gone=True) is step


def volume(**changes: Any) -> VolumeView:
    made = volume_view(persistent_volume_pb2.PersistentVolume())
    base: dict[str, Any] = {
        "phase": "Released",
        "reclaim_policy": "Delete",
        "claim": "default/data",
        "finalizers": (VOLUME_FINALIZER,),
    }
    return replace(made, **{**base, **changes})


@pytest.mark.parametrize(
    ("view", "ours", "attached", "step"),
    [
        (volume(), True, False, VolumeStep.DELETE),
        (volume(phase="Failed"), True, False, VolumeStep.DELETE),
        (volume(), False, False, VolumeStep.NOTHING),
        (volume(), True, True, VolumeStep.NOTHING),
        (volume(phase="Bound"), True, False, VolumeStep.NOTHING),
        (volume(phase="Bound", is_deleting=True), True, False, VolumeStep.NOTHING),
        (volume(phase="Available", claim="", is_deleting=True), True, False, VolumeStep.DELETE),
        (volume(reclaim_policy="Retain"), True, False, VolumeStep.NOTHING),
        (volume(reclaim_policy="Retain", is_deleting=True), True, False, VolumeStep.LET_GO),
        (volume(reclaim_policy="Retain", is_deleting=True, finalizers=()), True, False, VolumeStep.NOTHING),
    ],
    ids=[
        "released",
        "failed",
        "not ours",
        "attached",
        "bound",
        "bound, deletion asked",
        "unclaimed, deletion asked",
        "retained",
        "retained, deletion asked",
        "let go",
    ],
)
def test_step_of_a_volume(view: VolumeView, ours: bool, attached: bool, step: VolumeStep) -> None:
    assert plan_volume(view, is_ours=ours, is_attached=attached) is step
