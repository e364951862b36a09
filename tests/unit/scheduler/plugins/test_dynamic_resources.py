"""Pods with claims of devices: when they wait, where they go, and that no device is given twice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.claimed import claim, device, device_class, resource_slice, use
from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import World, world
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.resource.v1.resource_pb2 import ResourceClaim, ResourceSlice
from tiphys_apimachinery.errors import Conflict, Forbidden
from tiphys_apimachinery.resource_claims import ALLOCATED_FINALIZER
from tiphys_scheduler.pod_reader import PodReader

GPU = device_class()


def wants(name: str, *claims: str, **more: Any) -> Pod:
    return use(pod_message(name, **more), *(claims or (f"{name}-gpu",)))


def gpus(where: str, *names: str) -> ResourceSlice:
    return resource_slice(where, *(device(name) for name in names), node=where)


def given(at: World, name: str) -> list[str]:
    """The devices that the stored claim has."""
    stored = at.client.find_stored(ResourceClaim, name, "default")
    return [one.device for one in stored.status.allocation.devices.results] if stored is not None else []


def users(at: World, name: str) -> list[str]:
    stored = at.client.stored(ResourceClaim, name, "default")
    return [user.name for user in stored.status.reservedFor]


def refusal(at: World, name: str) -> str:
    return next(
        (text for who, reason, text in reversed(at.events.seen) if (who, reason) == (name, "FailedScheduling")), ""
    )


async def test_C28_a_pod_goes_where_its_device_is_and_gets_it_before_it_is_bound() -> None:
    seed = (node("n1"), node("n2"), GPU, gpus("n2", "a"), claim("web-gpu"), wants("web"))
    async with world(*seed) as at:
        await at.until(lambda: at.node_of("web") == "n2")
        stored = at.client.stored(ResourceClaim, "web-gpu", "default")
        assert given(at, "web-gpu") == ["a"]
        assert users(at, "web-gpu") == ["web"]
        assert list(stored.metadata.finalizers) == [ALLOCATED_FINALIZER]
        writes = [call.method for call in at.client.writes() if call.method in ("BatchBind", "Update", "UpdateStatus")]
        assert writes == ["Update", "UpdateStatus", "BatchBind"]


async def test_C28_no_device_is_given_twice_and_who_waits_goes_on_when_one_is_free() -> None:
    pods = [wants(name) for name in ("one", "two", "three")]
    claims = [claim(f"{name}-gpu") for name in ("one", "two", "three")]
    async with world(node("n1"), GPU, gpus("n1", "a", "b"), *claims, *pods) as at:
        names = ("one", "two", "three")
        await at.until(lambda: sum(bool(at.node_of(name)) for name in names) == 2)
        late = next(name for name in names if not at.node_of(name))
        first, second = (name for name in names if name != late)
        await at.until(lambda: at.place_of(late) == "unschedulable")
        assert sorted([*given(at, f"{first}-gpu"), *given(at, f"{second}-gpu")]) == ["a", "b"]
        assert refusal(at, late).startswith("0/1 nodes are available: 1 cannot allocate all claims.")
        freed = given(at, f"{first}-gpu")
        stored = at.client.stored(ResourceClaim, f"{first}-gpu", "default")
        stored.status.ClearField("allocation")
        del stored.status.reservedFor[:]
        await at.client.update_status(stored)
        await at.until(lambda: at.place_of(late) != "unschedulable")
        await at.clock.run_for(2.0)
        await at.until(lambda: bool(at.node_of(late)))
        assert given(at, f"{late}-gpu") == freed


async def test_C28_a_pod_waits_outside_until_its_claims_are_there() -> None:
    made = pod_message("web")
    made.spec.resourceClaims.add(name="gpu", resourceClaimTemplateName="t")
    async with world(node("n1"), GPU, gpus("n1", "a"), made, wants("lost", "nothing")) as at:
        await at.until(lambda: at.place_of("web") == at.place_of("lost") == "gated")
        held = {w.pod.name: w.held for w in at.scheduler.queue.snapshot()}
        assert held["lost"] == 'resourceclaim "nothing" not found'
        assert held["web"] == 'pod "default/web": ResourceClaim for "gpu" not created yet'
        own = claim("web-gpu-xyz")
        own.metadata.ownerReferences.add(apiVersion="v1", kind="Pod", name="web", uid="uid-web", controller=True)
        await at.client.create(own)
        stored = at.client.stored(Pod, "web", "default")
        stored.status.resourceClaimStatuses.add(name="gpu", resourceClaimName="web-gpu-xyz")
        await at.client.update_status(stored)
        await at.until(lambda: at.node_of("web") == "n1")
        assert users(at, "web-gpu-xyz") == ["web"]


async def test_C28_a_claim_made_for_another_pod_is_not_taken() -> None:
    foreign = claim("web-gpu")
    foreign.metadata.ownerReferences.add(apiVersion="v1", kind="Pod", name="other", uid="uid-other", controller=True)
    async with world(node("n1"), GPU, gpus("n1", "a"), foreign, wants("web")) as at:
        await at.until(lambda: at.place_of("web") == "gated")
        (waiting,) = at.scheduler.queue.snapshot()
        assert waiting.held == 'resourceclaim "web-gpu" was not created for the pod'


async def test_C28_pods_share_a_claim_where_its_devices_are() -> None:
    pods = [wants(name, "shared") for name in ("one", "two")]
    async with world(node("n1"), node("n2"), GPU, gpus("n2", "a"), claim("shared"), *pods) as at:
        await at.until(lambda: any(at.node_of(name) for name in ("one", "two")))
        await at.clock.run_for(2.0)
        await at.until(lambda: at.node_of("one") == at.node_of("two") == "n2")
        assert sorted(users(at, "shared")) == ["one", "two"]
        assert given(at, "shared") == ["a"]


async def test_C28_devices_on_the_network_are_reached_from_the_nodes_that_they_say() -> None:
    nodes = [node("n1", labels={"zone": "a"}), node("n2", labels={"zone": "b"})]
    slices = [resource_slice("zonal", device("z"), zone="b")]
    async with world(*nodes, GPU, *slices, claim("web-gpu"), wants("web")) as at:
        await at.until(lambda: at.node_of("web") == "n2")
        stored = at.client.stored(ResourceClaim, "web-gpu", "default")
        (term,) = stored.status.allocation.nodeSelector.nodeSelectorTerms
        assert list(term.matchExpressions[0].values) == ["b"]


async def test_C28_a_class_that_nobody_made_is_named_and_waited_for() -> None:
    async with world(node("n1"), gpus("n1", "a"), claim("web-gpu"), wants("web")) as at:
        await at.until(lambda: "device class gpu does not exist" in refusal(at, "web"))
        await at.client.create(GPU)
        await at.clock.run_for(2.0)
        await at.until(lambda: at.node_of("web") == "n1")


async def test_C28_devices_that_are_published_late_free_the_pod() -> None:
    async with world(node("n1"), GPU, claim("web-gpu"), wants("web")) as at:
        await at.until(lambda: at.place_of("web") == "unschedulable")
        await at.client.create(gpus("n1", "a"))
        await at.clock.run_for(2.0)
        await at.until(lambda: at.node_of("web") == "n1")


@pytest.mark.parametrize("fault", [Conflict("somebody was first"), Forbidden("no")], ids=["conflict", "refused"])
async def test_C28_what_can_not_be_written_is_tried_again_and_nothing_stays_taken(fault: Exception) -> None:
    async with world(node("n1"), GPU, claim("web-gpu"), wants("web")) as at:
        at.client.server.fail("UpdateStatus", ResourceClaim, fault)
        await at.client.create(gpus("n1", "a"))
        for _ in range(8):
            await at.clock.run_for(2.0)
        await at.until(lambda: at.node_of("web") == "n1")
        assert given(at, "web-gpu") == ["a"]
        assert users(at, "web-gpu") == ["web"]


async def test_C28_a_binding_that_fails_gives_devices_and_reservation_back() -> None:
    async with world(node("n1"), GPU, claim("web-gpu"), wants("web")) as at:
        at.client.server.fail("BatchBind", Pod, Forbidden("not now"))
        await at.client.create(gpus("n1", "a"))
        await at.clock.run_for(2.0)
        await at.until(lambda: "not now" in refusal(at, "web") or bool(at.node_of("web")))
        for _ in range(8):
            await at.clock.run_for(2.0)
        await at.until(lambda: at.node_of("web") == "n1")
        assert users(at, "web-gpu") == ["web"]


async def test_C28_devices_that_keep_a_pod_where_it_has_no_room_are_given_back() -> None:
    held = claim("web-gpu")
    held.status.allocation.devices.results.add(request="r0", driver="gpu.example", pool="n1", device="a")
    term = held.status.allocation.nodeSelector.nodeSelectorTerms.add()
    term.matchFields.add(key="metadata.name", operator="In", values=["n1"])
    held.status.reservedFor.add(resource="pods", name="web", uid="uid-web")
    seed = (node("n1", cpu="1"), node("n2"), GPU, gpus("n1", "a"), gpus("n2", "b"), held, wants("web", cpu="2"))
    async with world(*seed) as at:
        await at.until(lambda: not given(at, "web-gpu") or bool(at.node_of("web")))
        await at.clock.run_for(2.0)
        await at.until(lambda: at.node_of("web") == "n2")
        assert given(at, "web-gpu") == ["b"]


async def test_C28_a_pod_without_claims_takes_the_short_way() -> None:
    async with world(node("n1"), GPU, gpus("n1", "a"), pod_message("plain")) as at:
        await at.until(lambda: at.node_of("plain") == "n1")
        assert not [call for call in at.client.writes() if call.kind == "ResourceClaim"]


def test_C28_what_was_made_for_a_pod_is_read_from_each_version_of_it() -> None:
    made = pod_message("web")
    made.spec.resourceClaims.add(name="gpu", resourceClaimTemplateName="t")
    reader = PodReader()
    assert reader.read(made).needs.resource_claims == (("gpu", ""),)
    made.status.resourceClaimStatuses.add(name="gpu", resourceClaimName="web-gpu-xyz")
    assert reader.read(made).needs.resource_claims == (("gpu", "default/web-gpu-xyz"),)
    made.status.resourceClaimStatuses[0].ClearField("resourceClaimName")
    assert reader.read(made).needs.resource_claims == ()
