"""Pods with claims through the whole cycle: what is written, what is waited for, and what a failure leaves behind."""

from __future__ import annotations

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.plugins.test_volume_binding import claim, storage_class, user, volume
from tests.unit.scheduler.world import World, world
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apimachinery.persistent_volumes import BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE
from tiphys_scheduler.volume_binder import TIMEOUT_S


def stored_claim(found: World, name: str = "data") -> PersistentVolumeClaim:
    return found.client.stored(PersistentVolumeClaim, name, "default")


def chosen(found: World) -> str:
    return str(stored_claim(found).metadata.annotations.get(SELECTED_NODE, ""))


async def bind(found: World, name: str = "data", to: str = "vol") -> None:
    """Does the binder's work."""
    item = stored_claim(found, name)
    item.spec.volumeName = to
    item.metadata.annotations[BIND_COMPLETED] = "yes"
    await found.client.update(item)


async def test_the_node_is_written_and_the_pod_bound_when_its_claim_is() -> None:
    async with world(node("a"), storage_class(), claim()) as found:
        await found.client.create(user("data"))
        await found.until(lambda: chosen(found) == "a")
        await found.client.create(pod_message("other"))
        await found.until(lambda: found.node_of("other") == "a")
        assert found.node_of("p") == ""
        await bind(found)
        await found.until(lambda: found.node_of("p") == "a")


async def test_a_volume_that_is_there_is_reserved() -> None:
    async with world(node("a"), storage_class(), claim(), volume()) as found:
        await found.client.create(user("data"))

        def reserved() -> PersistentVolume:
            return found.client.stored(PersistentVolume, "vol")

        await found.until(lambda: reserved().spec.claimRef.name == "data")
        assert reserved().metadata.annotations[BOUND_BY_CONTROLLER] == "yes"
        assert reserved().spec.claimRef.uid == stored_claim(found).metadata.uid
        await bind(found)
        await found.until(lambda: found.node_of("p") == "a")


async def test_a_pod_that_waited_for_its_claim_goes_at_once() -> None:
    async with world(node("a"), volume(claim_name="data")) as found:
        await found.client.create(user("data"))
        text = (
            '0/1 nodes are available: persistentvolumeclaim "data" not found. '
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
        await found.until(lambda: ("p", "FailedScheduling", text) in found.events.seen)
        await found.client.create(claim(bound_to="vol"))
        # The clock stands still: no backoff ends.
        await found.until(lambda: found.node_of("p") == "a")


async def test_a_provisioner_that_gives_a_node_up_sends_the_pod_back() -> None:
    async with world(node("a"), storage_class(), claim()) as found:
        await found.client.create(user("data"))
        await found.until(lambda: chosen(found) == "a")
        item = stored_claim(found)
        del item.metadata.annotations[SELECTED_NODE]
        await found.client.update(item)
        text = 'running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "data"'
        await found.until(lambda: ("p", "FailedScheduling", text) in found.events.seen)
        found.clock.advance(2)
        await found.until(lambda: chosen(found) == "a")


async def test_a_write_that_fails_is_tried_again() -> None:
    async with world(node("a"), storage_class(), claim()) as found:
        found.client.server.fail("Patch", PersistentVolumeClaim, ServiceUnavailable("not now"))
        await found.client.create(user("data"))
        await found.until(lambda: any(w.place == "backoff" for w in found.scheduler.queue.snapshot()))
        found.clock.advance(2)
        await found.until(lambda: chosen(found) == "a")


async def test_a_pod_does_not_wait_for_ever() -> None:
    async with world(node("a"), storage_class(), claim()) as found:
        await found.client.create(user("data"))
        await found.until(lambda: chosen(found) == "a")
        await found.clock.run_for(TIMEOUT_S + 2)
        await found.until(lambda: any("timed out waiting" in text for *_, text in found.events.seen))


async def test_a_deleted_pod_lets_go_of_what_was_chosen() -> None:
    by_hand = storage_class(provisioner="kubernetes.io/no-provisioner")
    async with world(node("a", pods="1"), by_hand, claim(), claim("other"), volume()) as found:
        found.client.server.fail("Update", PersistentVolume, ServiceUnavailable("not now"))
        await found.client.create(user("data"))
        await found.until(lambda: any(w.place == "backoff" for w in found.scheduler.queue.snapshot()))
        await found.client.delete(Pod, "p", "default", grace_period_s=0)
        await found.client.create(user("other", name="q"))
        await found.until(lambda: found.client.stored(PersistentVolume, "vol").spec.claimRef.name == "other")
