"""Claims of devices: made from templates once, named in the pod's status, freed when nobody uses them any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.claimed import claim, use
from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.resource.v1.resource_pb2 import ResourceClaim, ResourceClaimTemplate
from tiphys_apimachinery.errors import Conflict
from tiphys_apimachinery.resource_claims import ALLOCATED_FINALIZER, POD_CLAIM_NAME, PodClaim
from tiphys_client.fake import FakeClient
from tiphys_controller_manager.controllers.resource_claim.plan import ClaimPlan, User, apply, plan_claim, plan_pod

NAME = "resourceclaim-controller"


@asynccontextmanager
async def running(*seed: Any) -> AsyncIterator[House]:
    """The controller on a server that has these already."""
    client = FakeClient()
    client.seed(*seed)
    async with house(NAME, client=client) as built:
        yield built


def pod(name: str = "web", *, template: str = "t", phase: str = "Pending", node: str = "") -> Pod:
    """A pod with a claim from a template."""
    made = Pod()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = name, "default", f"uid-{name}"
    made.spec.containers.add(name="c", image="i")
    made.spec.nodeName = node
    made.status.phase = phase
    if template:
        made.spec.resourceClaims.add(name="gpu", resourceClaimTemplateName=template)
    return made


def template(name: str = "t") -> ResourceClaimTemplate:
    made = ResourceClaimTemplate()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.metadata.labels["app"] = "web"
    made.spec.spec.CopyFrom(claim("x").spec)
    return made


def allocated(item: ResourceClaim, *pods: str) -> ResourceClaim:
    """The claim with a device, reserved for pods."""
    if ALLOCATED_FINALIZER not in item.metadata.finalizers:
        item.metadata.finalizers.append(ALLOCATED_FINALIZER)
    item.status.allocation.devices.results.add(request="r0", driver="gpu.example", pool="n1", device="a")
    for name in pods:
        item.status.reservedFor.add(resource="pods", name=name, uid=f"uid-{name}")
    return item


async def claims(at: House) -> list[Any]:
    return await at.all(ResourceClaim, "default")


def stored(at: House, name: str) -> ResourceClaim:
    return at.client.stored(ResourceClaim, name, "default")


async def test_C28_a_pod_gets_a_claim_from_its_template_and_is_told_its_name() -> None:
    async with running(template(), pod()) as at:
        await at.settle()
        (made,) = await claims(at)
        assert made.metadata.name.startswith("web-gpu-")
        assert made.metadata.annotations[POD_CLAIM_NAME] == "gpu"
        assert made.metadata.labels["app"] == "web"
        (owner,) = made.metadata.ownerReferences
        assert (owner.kind, owner.uid, owner.controller, owner.blockOwnerDeletion) == ("Pod", "uid-web", True, True)
        assert made.spec == template().spec.spec
        (told,) = at.client.stored(Pod, "web", "default").status.resourceClaimStatuses
        assert (told.name, told.resourceClaimName) == ("gpu", made.metadata.name)


async def test_C28_a_claim_that_could_not_be_told_is_not_made_twice() -> None:
    async with running(template(), pod()) as at:
        at.client.server.fail("Patch", Pod, RuntimeError("lost"))
        await at.run_for(5.0)
        (made,) = await claims(at)
        (told,) = at.client.stored(Pod, "web", "default").status.resourceClaimStatuses
        assert told.resourceClaimName == made.metadata.name


async def test_C28_a_template_that_comes_late_is_used_when_it_comes() -> None:
    async with running(pod()) as at:
        await at.settle()
        assert await claims(at) == []
        assert "FailedResourceClaimCreation" in at.events.reasons()
        await at.client.create(template())
        await at.settle()
        assert len(await claims(at)) == 1


async def test_C28_a_claim_that_was_deleted_by_hand_is_made_again() -> None:
    async with running(template(), pod()) as at:
        await at.settle()
        (first,) = await claims(at)
        await at.client.delete(ResourceClaim, first.metadata.name, "default")
        await at.settle()
        (second,) = await claims(at)
        assert second.metadata.name != first.metadata.name
        (told,) = at.client.stored(Pod, "web", "default").status.resourceClaimStatuses
        assert told.resourceClaimName == second.metadata.name


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_C28_a_pod_that_has_ended_gets_no_claim_and_its_own_goes(phase: str) -> None:
    async with running(template(), pod(phase=phase), pod("live")) as at:
        await at.settle()
        (made,) = await claims(at)
        assert made.metadata.ownerReferences[0].name == "live"
        made.metadata.finalizers.append(ALLOCATED_FINALIZER)
        made = await at.client.update(made)
        await at.client.update_status(allocated(made, "live"))
        live = at.client.stored(Pod, "live", "default")
        live.status.phase = phase
        await at.client.update_status(live)
        await at.settle()
        assert await claims(at) == []


async def test_C28_devices_are_free_when_the_last_user_is_gone() -> None:
    seed = (use(pod("one", template="", node="n"), "shared"), use(pod("two", template="", node="n"), "shared"))
    async with running(allocated(claim("shared"), "one", "two"), *seed) as at:
        await at.client.delete(Pod, "one", "default", grace_period_s=0)
        await at.settle()
        assert [user.name for user in stored(at, "shared").status.reservedFor] == ["two"]
        assert stored(at, "shared").status.HasField("allocation")
        await at.client.delete(Pod, "two", "default", grace_period_s=0)
        await at.settle()
        assert not stored(at, "shared").status.HasField("allocation")
        assert not stored(at, "shared").metadata.finalizers


async def test_C28_a_conflict_is_tried_again() -> None:
    async with running(allocated(claim("x"), "gone")) as at:
        at.client.server.fail("UpdateStatus", ResourceClaim, Conflict("stale"))
        await at.run_for(5.0)
        assert not stored(at, "x").status.HasField("allocation")


async def test_C28_a_deleted_claim_goes_when_nobody_uses_it() -> None:
    async with running(allocated(claim("x"), "one"), use(pod("one", template="", node="n"), "x")) as at:
        await at.client.delete(ResourceClaim, "x", "default")
        await at.settle()
        assert stored(at, "x").status.HasField("allocation")
        await at.client.delete(Pod, "one", "default", grace_period_s=0)
        await at.settle()
        assert at.client.find_stored(ResourceClaim, "x", "default") is None


async def test_C28_a_pod_that_was_sent_by_hand_is_reserved_for() -> None:
    async with running(allocated(claim("x")), use(pod("one", template="", node="n"), "x")) as at:
        await at.settle()
        assert [user.name for user in stored(at, "x").status.reservedFor] == ["one"]


GPU = PodClaim("gpu", "", True)


def own(name: str, of: str = "gpu", *, ends: bool = False) -> ResourceClaim:
    made = claim(name)
    made.metadata.annotations[POD_CLAIM_NAME] = of
    if ends:
        made.metadata.deletionTimestamp.seconds = 1
    return made


@pytest.mark.parametrize(
    ("wanted", "claims_", "made", "make", "names"),
    [
        pytest.param([GPU], [], {}, ("gpu",), {}, id="none yet"),
        pytest.param([GPU], [own("a")], {}, (), {"gpu": "a"}, id="made before a crash"),
        pytest.param([GPU], [own("b"), own("a")], {}, (), {"gpu": "a"}, id="made twice: always the same"),
        pytest.param([PodClaim("gpu", "b", True)], [own("b"), own("a")], {}, (), {"gpu": "b"}, id="told already"),
        pytest.param([GPU], [], {"gpu": "a"}, (), {"gpu": "a"}, id="made and not seen yet"),
        pytest.param([GPU], [own("a", ends=True)], {}, ("gpu",), {}, id="the old one ends"),
        pytest.param([GPU], [own("a", "nic")], {}, ("gpu",), {}, id="another's"),
        pytest.param([PodClaim("gpu", "x", False)], [], {}, (), {}, id="no template"),
    ],
)
def test_C28_what_a_pod_lacks(wanted: Any, claims_: Any, made: Any, make: Any, names: Any) -> None:
    plan = plan_pod(wanted, claims_, made)
    assert (plan.make, dict(plan.names)) == (make, names)


LIVE, OVER = User("one", "uid-one", True, False), User("one", "uid-one", True, True)


@pytest.mark.parametrize(
    ("item", "pods", "plan"),
    [
        pytest.param(allocated(claim("x"), "one"), [LIVE], ClaimPlan(), id="in use"),
        pytest.param(
            allocated(claim("x"), "one"),
            [OVER],
            ClaimPlan(release=frozenset({"uid-one"}), is_freed=True, is_let_go=True),
            id="its user has ended",
        ),
        pytest.param(
            allocated(claim("x"), "one", "two"), [LIVE], ClaimPlan(release=frozenset({"uid-two"})), id="one is gone"
        ),
        pytest.param(allocated(claim("x")), [], ClaimPlan(), id="just given: its user is on the way"),
        pytest.param(allocated(claim("x")), [LIVE], ClaimPlan(reserve=(LIVE,)), id="sent by hand"),
        pytest.param(claim("x"), [LIVE], ClaimPlan(), id="nothing given"),
    ],
)
def test_C28_what_becomes_of_a_claim(item: ResourceClaim, pods: list[User], plan: ClaimPlan) -> None:
    assert plan_claim(item, {one.uid: one for one in pods}, pods) == plan
    changed = ResourceClaim()
    changed.CopyFrom(item)
    assert apply(changed, plan) == (plan != ClaimPlan())
    assert changed.status.HasField("allocation") == (item.status.HasField("allocation") and not plan.is_freed)
