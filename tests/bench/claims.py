"""How long a claim takes to be Bound, on a cluster that runs; tests/bench/cluster.py starts one and calls this."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import orjson

from tests.bench.figures import Figure, median
from tests.bench.rest_client import Client, request, watch_object

IMMEDIATE = "claim of an Immediate class, create to Bound seen by a watcher"
WITH_POD = "claim that waits for its pod, both created to Bound seen by a watcher"
MOST_S = 0.3
_CLAIMS = 10
_TIMEOUT_S = 30.0
_CLAIMS_PATH = "/api/v1/namespaces/default/persistentvolumeclaims"
_PODS_PATH = "/api/v1/namespaces/default/pods"
_CLASSES_PATH = "/apis/storage.k8s.io/v1/storageclasses"
_NODES_PATH = "/apis/storage.k8s.io/v1/csinodes"
_IMMEDIATE_CLASS = "bench-immediate"
_DRIVER = "hostpath.csi.tiphys.dev"
_BOUND = b'"phase":"Bound"'
_DELETED = b'{"type":"DELETED"'


async def measure_claims(client: Client) -> list[Figure]:
    """Both figures, one claim after the other; each is deleted before the next."""
    await _wait_for_driver(client)
    storage_class = {"metadata": {"name": _IMMEDIATE_CLASS}, "provisioner": _DRIVER, "reclaimPolicy": "Delete"}
    await client.call(request("POST", _CLASSES_PATH, orjson.dumps(storage_class)), status=201)
    at_once = [await _claim_time(client, f"now-{number}", _IMMEDIATE_CLASS) for number in range(1 + _CLAIMS)]
    with_pod = [await _claim_time(client, f"pod-{number}", "") for number in range(1 + _CLAIMS)]
    # The first of each finds nothing loaded yet.
    return [_figure(IMMEDIATE, at_once[1:]), _figure(WITH_POD, with_pod[1:])]


def _figure(name: str, times_s: list[float]) -> Figure:
    spread = f"best {min(times_s):.2f}, worst {max(times_s):.2f}; hostpath driver, {len(times_s)} one by one"
    return Figure(name, median(times_s), "s", MOST_S, spread)


async def _wait_for_driver(client: Client) -> None:
    """`tiphys up` does not wait until the node has its driver."""
    async with asyncio.timeout(_TIMEOUT_S):
        while _DRIVER.encode() not in await client.call(request("GET", _NODES_PATH)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def _claim_time(client: Client, name: str, storage_class: str) -> float:
    """Without a class the default one, and a pod that uses the claim."""
    bound, gone = asyncio.Event(), asyncio.Event()
    watches = [
        await watch_object(client, _CLAIMS_PATH, name, _BOUND, bound),
        await watch_object(client, _CLAIMS_PATH, name, _DELETED, gone),
    ]
    try:
        began = perf_counter()
        await client.call(request("POST", _CLAIMS_PATH, orjson.dumps(_claim(name, storage_class))), status=201)
        if not storage_class:
            await client.call(request("POST", _PODS_PATH, orjson.dumps(_pod(name))), status=201)
        await asyncio.wait_for(bound.wait(), _TIMEOUT_S)
        took_s = perf_counter() - began
        if not storage_class:
            await client.call(request("DELETE", f"{_PODS_PATH}/{name}"))
        await client.call(request("DELETE", f"{_CLAIMS_PATH}/{name}"))
        await asyncio.wait_for(gone.wait(), _TIMEOUT_S)
        return took_s
    finally:
        for watch in watches:
            watch.close()


def _claim(name: str, storage_class: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _pod(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "box",
                    "image": "busybox",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "3600"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
        },
    }
