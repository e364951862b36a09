"""A kubelet's summary as figures, and figures as objects of metrics.k8s.io. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from tiphys.api.metrics.v1beta1 import metrics_pb2
from tiphys_apimachinery.quantity import Format, Quantity

# Of kubelets that do not say over which time their rate is the mean. Source: cAdvisor's housekeeping interval.
_USUAL_WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Use of processors and memory of one container or node, and the span of time that it was measured over."""

    nano_cores: int
    working_set_bytes: int
    at: datetime
    window_s: float


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """What one kubelet tells. Pods are by their uid; one of whose containers nothing is known is not there."""

    node: Figures | None = None
    pods: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)


def read_summary(body: bytes) -> NodeFigures:
    """The figures in a /stats/summary. Raises ValueError for what is none."""
    document = orjson.loads(body)
    try:
        pods = {pod["podRef"]["uid"]: found for pod in document["pods"] if (found := _containers(pod))}
        return NodeFigures(_figures(document["node"]), pods)
    except (KeyError, TypeError, AttributeError) as err:
        raise ValueError(f"no summary of a kubelet: {err}") from err


def _containers(pod: Mapping[str, Any]) -> dict[str, Figures]:
    """Of all containers, or none: half a pod would look like one that uses little."""
    found = {one["name"]: _figures(one) for one in pod.get("containers") or ()}
    return {name: figures for name, figures in found.items() if figures} if all(found.values()) else {}


def _figures(one: Mapping[str, Any]) -> Figures | None:
    cpu, memory = one.get("cpu") or {}, one.get("memory") or {}
    if "usageNanoCores" not in cpu or "workingSetBytes" not in memory:
        return None
    return Figures(
        int(cpu["usageNanoCores"]),
        int(memory["workingSetBytes"]),
        datetime.fromisoformat(cpu["time"]),
        float(cpu.get("windowSeconds") or _USUAL_WINDOW_S),
    )


def node_metrics(node: Any, figures: Figures, now: datetime) -> metrics_pb2.NodeMetrics:
    """The object of a node."""
    made = metrics_pb2.NodeMetrics()
    _describe(made, node, now)
    _stamp(made, figures)
    _fill(made.usage, figures)
    return made


def pod_metrics(pod: Any, containers: Mapping[str, Figures], now: datetime) -> metrics_pb2.PodMetrics:
    """The object of a pod; its time is that of its oldest figures."""
    made = metrics_pb2.PodMetrics()
    _describe(made, pod, now)
    _stamp(made, min(containers.values(), key=lambda one: one.at))
    for name, figures in containers.items():
        _fill(made.containers.add(name=name).usage, figures)
    return made


def _describe(made: Any, obj: Any, now: datetime) -> None:
    made.metadata.name, made.metadata.namespace = obj.metadata.name, obj.metadata.namespace
    made.metadata.labels.update(obj.metadata.labels)
    made.metadata.creationTimestamp.seconds = int(now.timestamp())


def _stamp(made: Any, figures: Figures) -> None:
    made.timestamp.seconds = int(figures.at.timestamp())
    # Durations are written in whole milliseconds: the finer digits say nothing.
    made.window.duration = round(figures.window_s * 1000) * 1_000_000


def _fill(usage: Any, figures: Figures) -> None:
    usage["cpu"].string = str(Quantity(figures.nano_cores))
    usage["memory"].string = str(Quantity.of(figures.working_set_bytes, Format.BINARY))
