"""Tables show what kubectl users expect to see."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from google.protobuf.message import Message

from tests.unit.apimachinery.samples import random_message
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.autoscaling.v2 import autoscaling_pb2
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import event_pb2, node_pb2, persistent_volume_claim_pb2, pod_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.codec.cells.text import human_duration
from tiphys_apimachinery.codec.table import table_for
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.scheme import ResourceInfo, load_default

_NOW = datetime.datetime(2026, 11, 21, 12, 0, 0, tzinfo=datetime.UTC)
_SERVED = [resource for resource in load_default().resources() if "list" in resource.verbs]


def _cells(cls: type[Message], value: dict[str, Any]) -> dict[str, Any]:
    value = {"metadata": {"name": "x", "creationTimestamp": "2026-11-21T11:00:00Z"}, **value}
    resource = load_default().by_message(cls)
    assert resource is not None
    table = table_for(resource, [json_codec.from_json(cls, value)], _NOW, "None")
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


@pytest.mark.parametrize("resource", _SERVED, ids=lambda r: f"{r.api_version}/{r.kind}")
def test_A43_every_resource_has_a_cell_for_each_column(resource: ResourceInfo) -> None:
    objects = [resource.message(), *(random_message(resource.message, seed) for seed in range(5))]
    table = table_for(resource, objects, _NOW)
    columns = table["columnDefinitions"]
    for row in table["rows"]:
        assert len(row["cells"]) == len(columns)
        for column, cell in zip(columns, row["cells"], strict=True):
            if column["type"] == "integer":
                assert type(cell) is int or cell == "<none>", column["name"]
            assert cell is None or isinstance(cell, (str, int, bool))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0.9, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 61, "3h1m"),
        (8 * 3600, "8h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400, "8d"),
        (2 * 365 * 86400, "2y"),
        (2 * 365 * 86400 + 86400, "2y1d"),
        (8 * 365 * 86400, "8y"),
    ],
)
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def _status(name: str = "c", **state: Any) -> dict[str, Any]:
    return {"name": name, "restartCount": 0, "image": "", "imageID": "", "ready": False, **state}


_RUNNING: dict[str, Any] = {"state": {"running": {}}, "ready": True}
_POD_CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "running": (
        {},
        {"phase": "Running", "containerStatuses": [_status(**_RUNNING)]},
        {"Ready": "1/1", "Status": "Running"},
    ),
    "pending": ({}, {"phase": "Pending"}, {"Ready": "0/1", "Status": "Pending"}),
    "evicted": ({}, {"phase": "Failed", "reason": "Evicted"}, {"Status": "Evicted"}),
    "crash loop": (
        {},
        {
            "phase": "Running",
            "containerStatuses": [
                _status(
                    state={"waiting": {"reason": "CrashLoopBackOff"}},
                    restartCount=3,
                    lastState={"terminated": {"exitCode": 1, "finishedAt": "2026-11-21T11:55:00Z"}},
                )
            ],
        },
        {"Ready": "0/1", "Status": "CrashLoopBackOff", "Restarts": "3 (5m ago)"},
    ),
    "ended by a signal": (
        {},
        {"phase": "Failed", "containerStatuses": [_status(state={"terminated": {"exitCode": 137, "signal": 9}})]},
        {"Status": "Signal:9"},
    ),
    "exit code": (
        {},
        {"phase": "Failed", "containerStatuses": [_status(state={"terminated": {"exitCode": 3}})]},
        {"Status": "ExitCode:3"},
    ),
    "one of two completed": (
        {"containers": [{"name": "c"}, {"name": "d"}]},
        {
            "phase": "Running",
            "containerStatuses": [
                _status("c", state={"terminated": {"exitCode": 0, "reason": "Completed"}}),
                _status("d", **_RUNNING),
            ],
        },
        {"Ready": "1/2", "Status": "NotReady"},
    ),
    "first of two init containers": (
        {"initContainers": [{"name": "i"}, {"name": "j"}]},
        {"phase": "Pending", "initContainerStatuses": [_status("i", state={"running": {}}), _status("j")]},
        {"Status": "Init:0/2"},
    ),
    "init container failed": (
        {"initContainers": [{"name": "i"}]},
        {"phase": "Pending", "initContainerStatuses": [_status("i", state={"terminated": {"exitCode": 2}})]},
        {"Status": "Init:ExitCode:2"},
    ),
    "sidecar counts": (
        {"initContainers": [{"name": "s", "restartPolicy": "Always"}]},
        {
            "phase": "Running",
            "initContainerStatuses": [_status("s", started=True, **_RUNNING)],
            "containerStatuses": [_status(**_RUNNING)],
        },
        {"Ready": "2/2", "Status": "Running"},
    ),
    "gated": (
        {},
        {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
        {"Status": "SchedulingGated"},
    ),
    "wide": (
        {"nodeName": "n1", "readinessGates": [{"conditionType": "g"}]},
        {
            "podIPs": [{"ip": "10.0.0.1"}],
            "nominatedNodeName": "n2",
            "conditions": [{"type": "g", "status": "True"}],
        },
        {"IP": "10.0.0.1", "Node": "n1", "Nominated Node": "n2", "Readiness Gates": "1/1", "Age": "60m"},
    ),
}


@pytest.mark.parametrize(("spec", "status", "expected"), _POD_CASES.values(), ids=_POD_CASES)
def test_pod(spec: dict[str, Any], status: dict[str, Any], expected: dict[str, Any]) -> None:
    cells = _cells(pod_pb2.Pod, {"spec": {"containers": [{"name": "c"}], **spec}, "status": status})
    assert {name: cells[name] for name in expected} == expected


def test_pod_that_is_being_deleted_is_terminating() -> None:
    metadata = {"name": "x", "deletionTimestamp": "2026-11-21T11:59:00Z"}
    status = {"phase": "Running", "containerStatuses": [_status(**_RUNNING)]}
    assert _cells(pod_pb2.Pod, {"metadata": metadata, "status": status})["Status"] == "Terminating"
    lost = {**status, "reason": "NodeLost"}
    assert _cells(pod_pb2.Pod, {"metadata": metadata, "status": lost})["Status"] == "Unknown"


@pytest.mark.parametrize(
    ("cls", "value", "expected"),
    [
        (
            apps_pb2.Deployment,
            {
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {"spec": {"containers": [{"name": "a", "image": "b:1"}]}},
                },
                "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2},
            },
            {"Ready": "2/3", "Up-to-date": 3, "Available": 2, "Images": "b:1", "Selector": "app=web", "Age": "60m"},
        ),
        (
            service_pb2.Service,
            {
                "spec": {
                    "type": "NodePort",
                    "clusterIPs": ["10.96.0.5"],
                    "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}],
                }
            },
            {
                "Cluster-IP": "10.96.0.5",
                "External-IP": "<none>",
                "Port(s)": "80:30080/TCP,53/UDP",
                "Selector": "<none>",
            },
        ),
        (service_pb2.Service, {"spec": {"type": "LoadBalancer"}}, {"External-IP": "<pending>", "Port(s)": "<none>"}),
        (
            node_pb2.Node,
            {
                "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                },
            },
            {
                "Status": "Ready,SchedulingDisabled",
                "Roles": "control-plane",
                "Internal-IP": "10.0.0.1",
                "External-IP": "<none>",
                "Age": "<unknown>",
                "OS-Image": "<unknown>",
            },
        ),
        (
            batch_pb2.Job,
            {
                "spec": {"parallelism": 2},
                "status": {"succeeded": 1, "startTime": "2026-11-21T11:59:00Z", "conditions": []},
            },
            {"Status": "Running", "Completions": "1/1 of 2", "Duration": "60s"},
        ),
        (
            event_pb2.Event,
            {
                "involvedObject": {"kind": "Pod", "name": "p"},
                "source": {"component": "kubelet", "host": "n1"},
                "lastTimestamp": "2026-11-21T11:58:00Z",
                "message": " hello\n",
            },
            {"Last Seen": "2m", "Object": "pod/p", "Source": "kubelet, n1", "Message": "hello", "Count": "1"},
        ),
        (
            persistent_volume_claim_pb2.PersistentVolumeClaim,
            {
                "spec": {"volumeName": "v", "storageClassName": "fast"},
                "status": {
                    "phase": "Bound",
                    "capacity": {"storage": "1024Mi"},
                    "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                },
            },
            {"Status": "Bound", "Capacity": "1Gi", "Access Modes": "RWO,RWX", "StorageClass": "fast"},
        ),
        (
            discovery_pb2.EndpointSlice,
            {
                "addressType": "IPv4",
                "endpoints": [{"addresses": [f"10.0.0.{i}"]} for i in range(5)],
                "ports": [{"port": 80}],
            },
            {"Ports": "80", "Endpoints": "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more..."},
        ),
        (
            autoscaling_pb2.HorizontalPodAutoscaler,
            {
                "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                    "metrics": [
                        {
                            "type": "Resource",
                            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                        }
                    ],
                }
            },
            {"Reference": "Deployment/d", "Targets": "cpu: <unknown>/80%", "MinPods": "<unset>"},
        ),
        (
            storage_pb2.StorageClass,
            {"metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}},
            {"Name": "s (default)", "ReclaimPolicy": "Delete", "AllowVolumeExpansion": False},
        ),
    ],
)
def test_familiar_columns(cls: type[Message], value: dict[str, Any], expected: dict[str, Any]) -> None:
    cells = _cells(cls, value)
    assert {name: cells[name] for name in expected} == expected


def test_rows_carry_as_much_of_the_object_as_was_asked_for() -> None:
    resource = load_default().by_kind("v1", "Pod")
    assert resource is not None
    pod = json_codec.from_json(pod_pb2.Pod, {"metadata": {"name": "x"}, "status": {"phase": "Succeeded"}})
    row = table_for(resource, [pod], _NOW)["rows"][0]
    assert row["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "x"},
    }
    assert row["conditions"][0]["type"] == "Completed"
    assert table_for(resource, [pod], _NOW, "None")["rows"][0]["object"] is None
    assert table_for(resource, [pod], _NOW, "Object")["rows"][0]["object"] == json_codec.to_json(pod)
    with pytest.raises(BadRequest):
        table_for(resource, [pod], _NOW, "Everything")
