"""What drivers tell of how full volumes are."""

from __future__ import annotations

import grpc

from tests.unit.kubelet.volumes.csi_world import CsiWorld, claiming_pod, csi_world, seed_claim
from tiphys_component.clock import SystemClock
from tiphys_component.metrics import Registry
from tiphys_kubelet.csi.volume_stats import VolumeStats, VolumeUse
from tiphys_kubelet.stats.readings import ContainerReading, Reading, Sample, Usage
from tiphys_kubelet.stats.summary import summary
from tiphys_kubelet.volumes.csi_disk import publish_mount

USED = "kubelet_volume_stats_used_bytes"


def statistics(world: CsiWorld, registry: Registry) -> VolumeStats:
    """Of the world's volumes."""
    return VolumeStats(world.csi.plugin.published, world.csi.drivers, registry, SystemClock())


async def test_figures_of_claims_are_metrics_while_their_pods_live() -> None:
    registry = Registry()
    async with csi_world() as world:
        seed_claim(world)
        stats = statistics(world, registry)
        await world.ensure(claiming_pod())
        await stats.collect()
        claim = {"namespace": "default", "persistentvolumeclaim": "data"}
        assert registry.value(USED, **claim) == 50
        assert registry.value("kubelet_volume_stats_inodes_free", **claim) == 9
        (use,) = stats.uses
        assert (use.pod_uid, use.volume) == ("uid-1", "v-data")
        asked = world.driver.called("NodeGetVolumeStats")[0]
        assert asked.volume_path == str(publish_mount(world.csi.plugin.published()[0].request.path))
        await world.manager.tear_down("uid-1")
        await stats.collect()
        assert registry.value(USED, **claim) is None


async def test_driver_that_can_not_tell_leaves_the_volume_out() -> None:
    async with csi_world() as world:
        seed_claim(world)
        await world.ensure(claiming_pod())
        world.driver.fail["NodeGetVolumeStats"] = (grpc.StatusCode.INTERNAL, "no")
        stats = statistics(world, Registry())
        await stats.collect()
        assert stats.uses == ()


def test_summary_has_the_volumes_of_pods_that_run() -> None:
    running = ContainerReading("c1", "uid-1", "default", "web", "app", Reading(0, 0, 0))
    uses = [VolumeUse(uid, "v", "default", "data", {"used_bytes": 5}) for uid in ("uid-1", "gone")]
    (pod,) = summary("n", Usage(Sample(0.0, [running])), SystemClock().now(), uses)["pods"]
    assert pod["volume"] == [{"usedBytes": 5, "name": "v", "pvcRef": {"name": "data", "namespace": "default"}}]
