"""From claim to volume and back, with a real API server, binder, driver and companion."""

from __future__ import annotations

import asyncio
import time

from tests.integration.csi.conftest import Claim, PersistentVolume, Storage
from tests.support.promptness import PROMPTLY_S
from tiphys_csi.companion.provisioning import CLAIM_FINALIZER
from tiphys_csi.hostpath.rules import TOPOLOGY_KEY

SELECTED = "volume.kubernetes.io__selected-node"
# The figure of the design for a claim that need not wait for a pod.


async def _all_gone(storage: Storage) -> bool:
    return not await storage.volumes() and not any(node.volumes() for node in storage.nodes)


async def test_claim_of_an_immediate_class_is_bound_and_its_volume_goes_with_it(storage: Storage) -> None:
    node = storage.node("n1")
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    claim = await storage.add_claim("data", size="3Gi")
    volume = await storage.bound("data")
    assert volume.metadata.name == f"pvc-{claim.metadata.uid}"
    assert volume.spec.capacity["storage"].string == "3Gi"
    assert volume.spec.persistentVolumeReclaimPolicy == "Delete"
    (term,) = volume.spec.nodeAffinity.required.nodeSelectorTerms
    assert [(e.key, list(e.values)) for e in term.matchExpressions] == [(TOPOLOGY_KEY, ["n1"])]
    assert node.volumes() == [volume.spec.persistentVolumeSource.csi.volumeHandle]

    async def unmarked() -> bool:
        found = await storage.claim("data")
        return found is not None and CLAIM_FINALIZER not in found.metadata.finalizers

    await storage.until(unmarked)

    async def told() -> bool:
        return "ProvisioningSucceeded" in await storage.events("data")

    await storage.until(told)
    await storage.client.delete(Claim, "data", "default")
    await storage.until(lambda: _all_gone(storage))


async def test_claim_to_bound_takes_at_most_three_tenths_of_a_second(storage: Storage) -> None:
    node = storage.node("n1")
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("warm")
    await storage.bound("warm")
    took = []
    for number in range(5):
        began = time.monotonic()
        await storage.add_claim(f"data-{number}")
        await storage.bound(f"data-{number}")
        took.append(time.monotonic() - began)
    assert min(took) <= PROMPTLY_S, took


async def test_waiting_class_is_provisioned_on_the_selected_node_only(storage: Storage) -> None:
    nodes = [storage.node("n1"), storage.node("n2")]
    for node in nodes:
        await storage.add_node(node.name)
        node.start_driver()
        node.start_companion()
    await storage.add_class("local", mode="WaitForFirstConsumer")
    await storage.add_claim("data", "local")
    await storage.add_claim("other", "local", **{SELECTED: "n2"})
    volume = await storage.bound("other")
    assert nodes[0].volumes() == []
    assert nodes[1].volumes() == [volume.spec.persistentVolumeSource.csi.volumeHandle]
    waiting = await storage.claim("data")
    assert waiting is not None
    assert waiting.status.phase == "Pending"
    assert not waiting.metadata.finalizers or CLAIM_FINALIZER not in waiting.metadata.finalizers


async def test_companions_of_several_nodes_make_one_volume_for_each_immediate_claim(storage: Storage) -> None:
    nodes = [storage.node(f"n{number}") for number in range(3)]
    for node in nodes:
        await storage.add_node(node.name)
        node.start_driver()
        node.start_companion()
    await storage.add_class()
    for number in range(6):
        await storage.add_claim(f"data-{number}")
    for number in range(6):
        await storage.bound(f"data-{number}")
    assert sum(len(node.volumes()) for node in nodes) == 6
    assert len(await storage.volumes()) == 6


async def test_companion_and_driver_killed_again_and_again_neither_double_nor_lose_a_volume(storage: Storage) -> None:
    node = storage.node("n1", is_process=True)
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    for number in range(12):
        await storage.add_claim(f"data-{number}")
        # Somewhere in the middle of what the claim set going; a little later each time.
        await asyncio.sleep(0.004 * number)
        part = "companion" if number % 2 else "driver"
        await node.kill(part)
        if number % 3 == 0:
            await storage.client.delete(Claim, f"data-{number}", "default")
        node.start_companion() if part == "companion" else node.start_driver()
    left = [number for number in range(12) if number % 3]
    for number in left:
        await storage.bound(f"data-{number}")

    async def settled() -> bool:
        return len(node.volumes()) == len(left) == len(await storage.volumes())

    await storage.until(settled)
    for number in left:
        await storage.client.delete(Claim, f"data-{number}", "default")
    await storage.until(lambda: _all_gone(storage))


async def test_volume_of_a_retaining_class_outlives_its_claim(storage: Storage) -> None:
    node = storage.node("n1")
    node.start_driver()
    node.start_companion()
    from tiphys_csi.hostpath import manifests

    kept = manifests.storage_class("kept", default=False)
    kept.volumeBindingMode, kept.reclaimPolicy = "Immediate", "Retain"
    await storage.client.create(kept)
    await storage.add_claim("data", "kept")
    volume = await storage.bound("data")
    await storage.client.delete(Claim, "data", "default")

    async def released() -> bool:
        found = await storage.client.get(PersistentVolume, volume.metadata.name)
        return found.status.phase == "Released"

    await storage.until(released)
    await storage.client.delete(PersistentVolume, volume.metadata.name)

    async def gone() -> bool:
        return not await storage.volumes()

    await storage.until(gone)
    assert len(node.volumes()) == 1


async def test_refusal_of_the_driver_is_an_event(storage: Storage) -> None:
    node = storage.node("n1")
    node.start_driver()
    node.start_companion()
    await storage.add_class("odd", colour="blue")
    await storage.add_claim("data", "odd")

    async def told() -> bool:
        return "ProvisioningFailed" in await storage.events("data")

    await storage.until(told)
    await storage.client.delete(Claim, "data", "default")
    await storage.until(lambda: _all_gone(storage))

    async def claim_gone() -> bool:
        return await storage.claim("data") is None

    await storage.until(claim_gone)


async def test_claim_of_a_node_that_was_removed_is_made_on_another(storage: Storage) -> None:
    await storage.add_node("n1")
    node = storage.node("n1")
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("data", **{SELECTED: "removed"})
    await storage.bound("data")
    assert len(node.volumes()) == 1
