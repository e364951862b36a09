"""Figures in a kubelet's summary, and objects made of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apiserver.metrics_api.figures import Figures, node_metrics, pod_metrics, read_summary

TIME = "2026-01-02T03:04:05Z"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def use(nano_cores: int | None, working_set: int, **more: Any) -> dict[str, Any]:
    """cpu and memory as a kubelet writes them."""
    cpu = {"time": TIME, "usageCoreNanoSeconds": 1, **more}
    if nano_cores is not None:
        cpu["usageNanoCores"] = nano_cores
    return {"cpu": cpu, "memory": {"time": TIME, "workingSetBytes": working_set}}


def summary(node: dict[str, Any], *containers: dict[str, Any]) -> bytes:
    """A summary with one pod."""
    pod = {"podRef": {"name": "web", "namespace": "default", "uid": "u"}, "containers": list(containers)}
    return orjson.dumps({"node": {"nodeName": "n", **node}, "pods": [pod]})


def test_figures_of_node_and_containers() -> None:
    found = read_summary(summary(use(5, 2048, windowSeconds=15.5), {"name": "a", **use(7, 4096)}))
    assert found.node == Figures(5, 2048, AT, 15.5)
    assert found.pods == {"u": {"a": Figures(7, 4096, AT, 10.0)}}


def test_pod_of_which_half_is_known_is_left_out() -> None:
    found = read_summary(summary({}, {"name": "a", **use(7, 4096)}, {"name": "b", **use(None, 4096)}))
    assert found.node is None
    assert found.pods == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>"])
def test_what_is_no_summary_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_summary(body)


def test_objects_are_named_and_labelled_as_what_they_measure() -> None:
    pod: Any = Pod()
    pod.metadata.name, pod.metadata.namespace = "web", "default"
    pod.metadata.labels["app"] = "web"
    figures = {"a": Figures(123_456_789, 4096, AT, 15.0004), "b": Figures(0, 0, AT, 15.0)}
    assert to_json(pod_metrics(pod, figures, AT)) == {
        "kind": "PodMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}, "creationTimestamp": TIME},
        "timestamp": TIME,
        "window": "15s",
        "containers": [
            {"name": "a", "usage": {"cpu": "123456789n", "memory": "4Ki"}},
            {"name": "b", "usage": {"cpu": "0", "memory": "0"}},
        ],
    }
    node: Any = Node()
    node.metadata.name = "n"
    made = to_json(node_metrics(node, Figures(1_500_000_000, 3 << 20, AT, 9.5), AT))
    assert made["usage"] == {"cpu": "1500m", "memory": "3Mi"}
    assert made["window"] == "9.5s"
