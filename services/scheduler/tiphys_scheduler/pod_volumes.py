"""Disks that a pod names in its own spec, of kinds that one node or one writer may have at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tiphys.api.core.v1.pod_pb2 import PodSpec

# Kind, what it is, and whether it is only read.
Disk = tuple[str, str, bool]


def disks(spec: PodSpec) -> Iterator[Disk]:
    """The disks of a pod; one of Ceph once for each of its monitors, since a shared one is enough to be the same.

    Source of what is the same disk: kube-scheduler pkg/scheduler/framework/plugins/volumerestrictions.
    """
    for volume in spec.volumes:
        source = volume.volumeSource
        if source.HasField("gcePersistentDisk"):
            yield "gce", source.gcePersistentDisk.pdName, source.gcePersistentDisk.readOnly
        if source.HasField("awsElasticBlockStore"):
            # Not even readers share one.
            yield "aws", source.awsElasticBlockStore.volumeID, False
        if source.HasField("iscsi"):
            yield "iscsi", source.iscsi.iqn, source.iscsi.readOnly
        if source.HasField("rbd"):
            rbd = source.rbd
            for monitor in rbd.monitors:
                yield "rbd", f"{monitor} {rbd.pool or 'rbd'} {rbd.image}", rbd.readOnly


def conflicts(wanted: Disk, taken: Iterable[Disk]) -> list[Disk]:
    """Those of the taken disks that keep the wanted one away."""
    kind, name, reads = wanted
    return [disk for disk in taken if disk[:2] == (kind, name) and not (reads and disk[2])]
