"""GET /stats/summary: what containers use, from the runtime's own figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_kubelet.csi.volume_stats import VolumeUse
from tiphys_kubelet.runtime import labels


def summary(
    node_name: str, stats: Sequence[cri.ContainerStats], started_at: datetime, volumes: Sequence[VolumeUse] = ()
) -> dict[str, Any]:
    """The document, with pods in the order of their names. Pure."""
    pods: dict[str, dict[str, Any]] = {}
    for one in stats:
        told = one.attributes.labels
        uid = told.get(labels.POD_UID, "")
        if not uid:
            continue
        ref = {"name": told[labels.POD_NAME], "namespace": told[labels.POD_NAMESPACE], "uid": uid}
        pod = pods.setdefault(uid, {"podRef": ref, "startTime": _time(started_at), "containers": []})
        pod["containers"].append(_container(one, started_at))
    for use in volumes:
        if use.pod_uid in pods:
            pods[use.pod_uid].setdefault("volume", []).append(_volume(use))
    ordered = sorted(pods.values(), key=lambda pod: (pod["podRef"]["namespace"], pod["podRef"]["name"]))
    node = {"nodeName": node_name, "startTime": _time(started_at)}
    return {"node": node, "pods": ordered}


def _container(one: cri.ContainerStats, started_at: datetime) -> dict[str, Any]:
    cpu, memory, disk = one.cpu, one.memory, one.writable_layer
    return {
        "name": one.attributes.metadata.name,
        "startTime": _time(started_at),
        "cpu": {
            "time": _time_ns(cpu.timestamp),
            "usageNanoCores": cpu.usage_nano_cores.value,
            "usageCoreNanoSeconds": cpu.usage_core_nano_seconds.value,
        },
        "memory": {
            "time": _time_ns(memory.timestamp),
            "workingSetBytes": memory.working_set_bytes.value,
            "usageBytes": memory.usage_bytes.value,
            "rssBytes": memory.rss_bytes.value,
        },
        "rootfs": {
            "time": _time_ns(disk.timestamp),
            "usedBytes": disk.used_bytes.value,
            "inodesUsed": disk.inodes_used.value,
        },
    }


def _volume(use: VolumeUse) -> dict[str, Any]:
    names = {
        "availableBytes": "available_bytes",
        "capacityBytes": "capacity_bytes",
        "usedBytes": "used_bytes",
        "inodesFree": "inodes_free",
        "inodes": "inodes",
        "inodesUsed": "inodes_used",
    }
    figures = {key: use.figures[name] for key, name in names.items() if name in use.figures}
    return {**figures, "name": use.volume, "pvcRef": {"name": use.claim, "namespace": use.namespace}}


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time_ns(nanoseconds: int) -> str:
    return _time(datetime.fromtimestamp(nanoseconds / 1_000_000_000, UTC))
