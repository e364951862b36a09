"""Claims and volumes that are deleted while in use stay until they are free; ephemeral claims live with their pod."""

from __future__ import annotations

import pytest

from tests.unit.controller_manager.controllers.test_persistentvolume_binder import claim, volume
from tests.unit.controller_manager.harness import house
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod

CLAIMS = "persistentvolumeclaim-protection-controller"
VOLUMES = "persistentvolume-protection-controller"
EPHEMERAL = "ephemeral-volume-controller"
HELD = "kubernetes.io/pvc-protection"


def user(*, node: str = "n1", phase: str = "Running") -> Pod:
    made = Pod()
    made.metadata.name, made.metadata.namespace = "p", "default"
    made.spec.nodeName = node
    made.spec.volumes.add(name="v").volumeSource.persistentVolumeClaim.claimName = "data"
    made.status.phase = phase
    return made


def held_claim() -> PersistentVolumeClaim:
    made = claim()
    made.metadata.finalizers.append(HELD)
    return made


async def test_a_claim_without_its_finalizer_gets_it() -> None:
    async with house(CLAIMS) as built:
        await built.client.create(claim())
        await built.settle()
        stored = built.client.stored(PersistentVolumeClaim, "data", "default")
        assert list(stored.metadata.finalizers) == [HELD]


@pytest.mark.parametrize(
    ("pod", "stays"),
    [
        pytest.param(user(), True, id="running"),
        pytest.param(user(phase="Succeeded"), True, id="finished but there"),
        pytest.param(user(node=""), False, id="without a node"),
        pytest.param(None, False, id="no pod"),
    ],
)
async def test_a_deleted_claim_stays_while_a_pod_uses_it(pod: Pod | None, stays: bool) -> None:
    async with house(CLAIMS) as built:
        await built.client.create(held_claim())
        if pod is not None:
            await built.client.create(pod)
        await built.settle()
        await built.client.delete(PersistentVolumeClaim, "data", "default")
        await built.settle()
        assert (built.client.find_stored(PersistentVolumeClaim, "data", "default") is not None) == stays
        if stays:
            await built.client.delete(Pod, "p", "default", grace_period_s=0)
            await built.settle()
            assert built.client.find_stored(PersistentVolumeClaim, "data", "default") is None


@pytest.mark.parametrize(("phase", "stays"), [("Bound", True), ("Available", False), ("Released", False)])
async def test_a_deleted_volume_stays_while_it_is_bound(phase: str, stays: bool) -> None:
    async with house(VOLUMES) as built:
        await built.client.create(volume())
        await built.settle()
        stored = built.client.stored(PersistentVolume, "vol")
        stored.status.phase = phase
        await built.client.update_status(stored)
        await built.client.delete(PersistentVolume, "vol")
        await built.settle()
        assert (built.client.find_stored(PersistentVolume, "vol") is not None) == stays


def wants_scratch() -> Pod:
    made = Pod()
    made.metadata.name, made.metadata.namespace = "p", "default"
    template = made.spec.volumes.add(name="scratch").volumeSource.ephemeral.volumeClaimTemplate
    template.metadata.labels["kind"] = "scratch"
    template.spec.accessModes.append("ReadWriteOnce")
    template.spec.resources.requests["storage"].string = "1Gi"
    made.status.phase = "Pending"
    return made


async def test_an_ephemeral_claim_is_made_for_its_pod() -> None:
    async with house(EPHEMERAL) as built:
        pod = await built.client.create(wants_scratch())
        await built.settle()
        stored = built.client.stored(PersistentVolumeClaim, "p-scratch", "default")
        assert stored.metadata.ownerReferences[0].uid == pod.metadata.uid
        assert stored.metadata.labels["kind"] == "scratch"
        assert stored.spec.resources.requests["storage"].string == "1Gi"


async def test_a_claim_of_somebody_else_is_not_taken_for_an_ephemeral_one() -> None:
    async with house(EPHEMERAL) as built:
        await built.client.create(claim("p-scratch"))
        await built.settle()
        await built.client.create(wants_scratch())
        await built.settle()
        text = "ephemeral volume scratch: PVC default/p-scratch was not created for pod default/p (pod is not owner)"
        assert ("Warning", "EphemeralVolumeCreationFailed", text) in built.events.seen
