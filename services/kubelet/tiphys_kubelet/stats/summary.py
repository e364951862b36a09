"""GET /stats/summary. Source: k8s.io/kubelet pkg/apis/stats/v1alpha1."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tiphys_kubelet.csi.volume_stats import VolumeUse
from tiphys_kubelet.stats.readings import ContainerReading, Rate, Reading, Usage

JSON = dict[str, Any]


def summary(node_name: str, usage: Usage, started_at: datetime, volumes: Sequence[VolumeUse] = ()) -> JSON:
    """The document, with pods in the order of their names. Pure.

    Beside Kubernetes' own members cpu has windowSeconds: over which time its usageNanoCores are the mean.
    """
    pods: dict[str, JSON] = {}
    for one in usage.sample.containers:
        ref = {"name": one.pod, "namespace": one.namespace, "uid": one.pod_uid}
        pod = pods.setdefault(one.pod_uid, {"podRef": ref, "startTime": _time(started_at), "containers": []})
        pod["containers"].append(_container(one, usage.containers.get(one.id), started_at))
    for uid, pod in pods.items():
        reading = usage.sample.pods.get(uid)
        if reading is not None:
            pod |= _use(reading, usage.pods.get(uid))
        begun = [one.started_ns for one in usage.sample.containers if one.pod_uid == uid and one.started_ns]
        if begun:
            pod["startTime"] = _time_ns(min(begun))
    for use in volumes:
        if use.pod_uid in pods:
            pods[use.pod_uid].setdefault("volume", []).append(_volume(use))
    ordered = sorted(pods.values(), key=lambda pod: (pod["podRef"]["namespace"], pod["podRef"]["name"]))
    node = {"nodeName": node_name, "startTime": _time(started_at)}
    if usage.sample.node is not None:
        node |= _use(usage.sample.node, usage.node)
    return {"node": node, "pods": ordered}


def _use(reading: Reading, rate: Rate | None) -> JSON:
    at = _time_ns(reading.at_ns)
    cpu: JSON = {"time": at, "usageCoreNanoSeconds": reading.cpu_ns}
    if rate is not None:
        cpu |= {"usageNanoCores": rate.nano_cores, "windowSeconds": round(rate.window_s, 3)}
    memory = {
        "time": at,
        "workingSetBytes": reading.working_set_bytes,
        "usageBytes": reading.usage_bytes,
        "rssBytes": reading.rss_bytes,
    }
    return {"cpu": cpu, "memory": memory}


def _container(one: ContainerReading, rate: Rate | None, started_at: datetime) -> JSON:
    disk = {"time": _time_ns(one.reading.at_ns), "usedBytes": one.disk_bytes, "inodesUsed": one.disk_inodes}
    begun = _time_ns(one.started_ns) if one.started_ns else _time(started_at)
    return {"name": one.name, "startTime": begun, **_use(one.reading, rate), "rootfs": disk}


def _volume(use: VolumeUse) -> JSON:
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
