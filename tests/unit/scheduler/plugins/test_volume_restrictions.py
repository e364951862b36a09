"""Disks that one node or one writer may have at a time, and zones of volumes."""

from __future__ import annotations

import pytest

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.plugins.test_volume_binding import claim, volume
from tiphys.api.core.v1.volume_pb2 import VolumeSource
from tiphys_apimachinery.persistent_volumes import claim_view, volume_view
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE, profile
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.plugins.volume_binding import VolumeBinding
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.volumes import Volumes

ZONE = "topology.kubernetes.io/zone"


def gce(name: str, *, reads: bool = False) -> VolumeSource:
    found = VolumeSource()
    found.gcePersistentDisk.pdName, found.gcePersistentDisk.readOnly = name, reads
    return found


def aws(name: str, *, reads: bool = False) -> VolumeSource:
    found = VolumeSource()
    found.awsElasticBlockStore.volumeID, found.awsElasticBlockStore.readOnly = name, reads
    return found


def iscsi(name: str, *, reads: bool = False) -> VolumeSource:
    found = VolumeSource()
    found.iscsi.iqn, found.iscsi.readOnly = name, reads
    return found


def rbd(image: str, *monitors: str, reads: bool = False) -> VolumeSource:
    found = VolumeSource()
    found.rbd.image, found.rbd.pool, found.rbd.readOnly = image, "pool", reads
    found.rbd.monitors.extend(monitors)
    return found


def using(name: str, source: VolumeSource) -> PodInfo:
    message = pod_message(name)
    message.spec.volumes.add(name="disk").volumeSource.CopyFrom(source)
    return pod_info(message)


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        (gce("d"), gce("d"), False),
        (gce("d"), gce("other"), True),
        (gce("d", reads=True), gce("d", reads=True), True),
        (gce("d", reads=True), gce("d"), False),
        (aws("d", reads=True), aws("d", reads=True), False),
        (aws("d"), gce("d"), True),
        (iscsi("iqn.1"), iscsi("iqn.1"), False),
        (iscsi("iqn.1", reads=True), iscsi("iqn.1", reads=True), True),
        (rbd("i", "a", "b"), rbd("i", "b", "c"), False),
        (rbd("i", "a"), rbd("i", "c"), True),
        (rbd("i", "a"), rbd("j", "a"), True),
        (rbd("i", "a", reads=True), rbd("i", "a", reads=True), True),
    ],
    ids=[
        "one disk", "two disks", "readers", "reader and writer", "readers on AWS", "two clouds",
        "iSCSI", "iSCSI readers", "Ceph, one monitor shared", "Ceph, no monitor shared", "two images", "Ceph readers",
    ],
)  # fmt: skip
def test_C3_a_disk_is_used_once_on_a_node(first: VolumeSource, second: VolumeSource, fits: bool) -> None:
    cache = Cache(Columns())
    cache.set_node(node("a"))
    framework = Framework(DEFAULT_PROFILE, cache.columns)
    cache.assume(using("first", first), "a")
    found = framework.place(using("second", second))
    assert isinstance(found, Placement) == fits
    if isinstance(found, FitError):
        assert found.message == "0/1 nodes are available: 1 node(s) had no available disk."
        cache.remove_pod("default/first")
        assert isinstance(framework.place(using("second", second)), Placement)


@pytest.mark.parametrize(
    ("labels", "value", "fits"),
    [
        ({ZONE: "x"}, "x", True),
        ({ZONE: "y"}, "x", False),
        ({ZONE: "y"}, "x__y", True),
        ({}, "x", True),
        ({"failure-domain.beta.kubernetes.io/zone": "x"}, "x", True),
        ({"topology.kubernetes.io/region": "r"}, "x", False),
    ],
    ids=["same", "other", "one of several", "node without zones", "the label's old name", "node with a region only"],
)
def test_C25_a_volume_is_used_in_its_zone(labels: dict[str, str], value: str, fits: bool) -> None:
    volumes = Volumes()
    bound = volume("vol", claim_name="data")
    bound.metadata.labels[ZONE] = value
    volumes.set_volume("vol", volume_view(bound))
    volumes.set_claim("default/data", claim_view(claim("data", bound_to="vol")))
    cache = Cache(Columns(), volumes)
    cache.set_node(node("a", labels=labels))
    framework = Framework(profile(VolumeBinding(volumes), volumes), cache.columns)
    message = pod_message("p")
    message.spec.volumes.add(name="v").volumeSource.persistentVolumeClaim.claimName = "data"
    found = framework.place(pod_info(message))
    assert isinstance(found, Placement) == fits
    if isinstance(found, FitError):
        assert found.message == "0/1 nodes are available: 1 node(s) had no available volume zone."


def test_C25_a_pod_goes_where_its_local_volume_is() -> None:
    volumes = Volumes()
    local = volume("vol", claim_name="data")
    term = local.spec.nodeAffinity.required.nodeSelectorTerms.add()
    term.matchExpressions.add(key="kubernetes.io/hostname", operator="In", values=["b"])
    volumes.set_volume("vol", volume_view(local))
    volumes.set_claim("default/data", claim_view(claim("data", bound_to="vol")))
    cache = Cache(Columns(), volumes)
    for name in "abc":
        cache.set_node(node(name, cpu="1" if name == "b" else "64", labels={"kubernetes.io/hostname": name}))
    message = pod_message("p", cpu="500m")
    message.spec.volumes.add(name="v").volumeSource.persistentVolumeClaim.claimName = "data"
    found = Framework(profile(VolumeBinding(volumes), volumes), cache.columns).place(pod_info(message))
    assert isinstance(found, Placement)
    assert found.node == "b"
