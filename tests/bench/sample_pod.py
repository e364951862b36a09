"""A typical pod of 2-3 KB in JSON: one container of a ReplicaSet, running, with its token volume."""

from __future__ import annotations

from typing import Any

_TOKEN_VOLUME = "kube-api-access-abcde"


def sample_pod(index: int = 0) -> dict[str, Any]:
    """The pod in plain JSON; the index makes its name and uid differ."""
    return {"kind": "Pod", "apiVersion": "v1", "metadata": _metadata(index), "spec": _spec(), "status": _status()}


def _metadata(index: int) -> dict[str, Any]:
    return {
        "name": f"web-7d4b9c6f5-{index:05d}",
        "generateName": "web-7d4b9c6f5-",
        "namespace": "default",
        "uid": f"0c9f7a52-2a3b-4c61-9e0e-{index:012d}",
        "resourceVersion": str(100_000 + index),
        "creationTimestamp": "2026-11-21T10:00:00Z",
        "labels": {"app": "web", "pod-template-hash": "7d4b9c6f5"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "web-7d4b9c6f5",
                "uid": "f4d1c4be-6f4c-4a27-8f3f-5a1f1a3a7b22",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _spec() -> dict[str, Any]:
    return {
        "volumes": [_token_volume()],
        "containers": [_container()],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "nodeName": "node-1",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for why in ("not-ready", "unreachable")
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }


def _token_volume() -> dict[str, Any]:
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    return {"name": _TOKEN_VOLUME, "projected": {"sources": sources, "defaultMode": 420}}


def _container() -> dict[str, Any]:
    return {
        "name": "web",
        "image": "registry.example.com/team/web:1.2.3",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": "LOG_LEVEL", "value": "info"}],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [
            {"name": _TOKEN_VOLUME, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        ],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }


def _status() -> dict[str, Any]:
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "conditions": [
            {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-11-21T10:00:05Z"}
            for kind in kinds
        ],
        "hostIP": "192.168.0.10",
        "podIP": "10.244.1.7",
        "podIPs": [{"ip": "10.244.1.7"}],
        "startTime": "2026-11-21T10:00:00Z",
        "containerStatuses": [
            {
                "name": "web",
                "state": {"running": {"startedAt": "2026-11-21T10:00:04Z"}},
                "lastState": {},
                "ready": True,
                "restartCount": 0,
                "image": "registry.example.com/team/web:1.2.3",
                "imageID": "",
                "containerID": f"containerd://{'b' * 64}",
            }
        ],
        "qosClass": "Burstable",
    }
