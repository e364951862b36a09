from __future__ import annotations

import pytest

from tiphys.api.core.v1 import persistent_volume_claim_pb2, persistent_volume_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys_component.clock import FakeClock
from tiphys_csi.companion import resizing
from tiphys_csi.companion.attaching import AttachStep, finalizer_of, plan
from tiphys_csi.companion.driver import ControllerRpc, DriverFacts, NodeRpc
from tiphys_csi.companion.resizing import Grown, ResizeStep

ATTACHES = DriverFacts(name="d.example.com", controller=frozenset({int(ControllerRpc.PUBLISH_UNPUBLISH_VOLUME)}))
PLAIN = DriverFacts(name="d.example.com")
EXPANDS = DriverFacts(name="d", controller=frozenset({int(ControllerRpc.EXPAND_VOLUME)}))
NODE_EXPANDS = DriverFacts(name="d", node=frozenset({int(NodeRpc.EXPAND_VOLUME)}))


def attachment(*, attached: bool = False, deleting: bool = False, held: bool = False) -> storage_pb2.VolumeAttachment:
    made = storage_pb2.VolumeAttachment()
    made.status.attached = attached
    if deleting:
        made.metadata.deletionTimestamp.seconds = 1
    if held:
        made.metadata.finalizers.append(finalizer_of("d.example.com"))
    return made


@pytest.mark.parametrize(
    ("given", "facts", "step"),
    [
        (attachment(), ATTACHES, AttachStep.ATTACH),
        (attachment(), PLAIN, AttachStep.SAY_ATTACHED),
        (attachment(attached=True, held=True), ATTACHES, AttachStep.NOTHING),
        (attachment(attached=True, held=True, deleting=True), ATTACHES, AttachStep.DETACH),
        (attachment(held=True, deleting=True), ATTACHES, AttachStep.DETACH),
        (attachment(held=True, deleting=True), PLAIN, AttachStep.LET_GO),
        (attachment(deleting=True), ATTACHES, AttachStep.NOTHING),
    ],
    ids=["new", "no attaching", "attached", "going", "going, half attached", "driver changed", "going, never begun"],
)
def test_step_of_an_attachment(given: storage_pb2.VolumeAttachment, facts: DriverFacts, step: AttachStep) -> None:
    assert plan(given, facts, is_ours=True) is step
    assert plan(given, facts, is_ours=False) is AttachStep.NOTHING


def claim(asked: str, has: str, *conditions: str) -> resizing.Claim:
    made = persistent_volume_claim_pb2.PersistentVolumeClaim()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = "data", "default", "u"
    made.spec.volumeName = "pv"
    made.spec.resources.requests["storage"].string = asked
    made.status.phase = "Bound"
    made.status.capacity["storage"].string = has
    for kind in conditions:
        made.status.conditions.add(type=kind, status="True")
    return made


def volume(has: str) -> resizing.PersistentVolume:
    made = persistent_volume_pb2.PersistentVolume()
    made.metadata.name = "pv"
    made.spec.capacity["storage"].string = has
    made.spec.claimRef.namespace, made.spec.claimRef.name, made.spec.claimRef.uid = "default", "data", "u"
    return made


@pytest.mark.parametrize(
    ("given", "held", "facts", "step"),
    [
        (claim("1Gi", "1Gi"), "1Gi", EXPANDS, ResizeStep.NOTHING),
        (claim("2Gi", "1Gi"), "1Gi", EXPANDS, ResizeStep.EXPAND),
        (claim("2Gi", "1Gi"), "2Gi", EXPANDS, ResizeStep.EXPAND),
        (claim("2Gi", "1Gi", resizing.NODE_PENDING), "2Gi", EXPANDS, ResizeStep.NOTHING),
        (claim("3Gi", "1Gi", resizing.NODE_PENDING), "2Gi", EXPANDS, ResizeStep.EXPAND),
        (claim("2Gi", "1Gi"), "1Gi", NODE_EXPANDS, ResizeStep.LEAVE_TO_NODE),
        (claim("2Gi", "1Gi"), "1Gi", PLAIN, ResizeStep.NOTHING),
    ],
    ids=[
        "as asked",
        "asks for more",
        "killed before the status",
        "the node's turn",
        "asks again",
        "node alone",
        "can't",
    ],
)
def test_step_of_a_claim_that_grows(given: resizing.Claim, held: str, facts: DriverFacts, step: ResizeStep) -> None:
    assert resizing.plan(given, volume(held), facts, is_ours=True) is step
    assert resizing.plan(given, volume(held), facts, is_ours=False) is ResizeStep.NOTHING


def test_node_is_announced_and_the_capacity_waits_for_it() -> None:
    done = resizing.with_outcome(claim("2Gi", "1Gi", resizing.RESIZING), Grown(2 << 30, needs_node=True), FakeClock())
    assert [one.type for one in done.status.conditions] == [resizing.NODE_PENDING]
    assert done.status.capacity["storage"].string == "1Gi"


def test_resize_without_a_node_is_over_at_once() -> None:
    done = resizing.with_outcome(claim("2Gi", "1Gi", resizing.RESIZING), Grown(2 << 30, needs_node=False), FakeClock())
    assert not done.status.conditions
    assert done.status.capacity["storage"].string == "2Gi"
