"""Many pods, written into a SQLite store before its server starts: through the API it would take minutes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop

from tests.bench.sample_pod import sample_pod
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec import json_codec, proto_codec
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import SystemClock

NAMESPACE = "scale"
# Creates under way at once: as many as one transaction takes.
_WIDTH = 500


def pod_name(number: int) -> str:
    """Of the pod with this number."""
    return f"web-7d4b9c6f5-{number:06d}"


def fill_pods(path: Path, count: int) -> None:
    """Write so many pods that wait for a node."""
    uvloop.run(_fill(path, count))


async def _fill(path: Path, count: int) -> None:
    store = await SqliteStore.open(path, SystemClock())
    namespace = Namespace()
    namespace.metadata.name, namespace.status.phase = NAMESPACE, "Active"
    await store.create(f"/registry/namespaces/{NAMESPACE}", _value("Namespace", namespace))
    pod = json_codec.from_json(Pod, sample_pod())
    pod.spec.nodeName = ""
    pod.ClearField("status")
    pod.status.phase = "Pending"
    pod.metadata.namespace, pod.metadata.resourceVersion = NAMESPACE, ""
    numbers = iter(range(count))

    async def write() -> None:
        for number in numbers:
            pod.metadata.name, pod.metadata.uid = pod_name(number), f"0c9f7a52-2a3b-4c61-9e0e-{number:012d}"
            await store.create(f"/registry/pods/{NAMESPACE}/{pod.metadata.name}", _value("Pod", pod))

    async with asyncio.TaskGroup() as group:
        for _ in range(_WIDTH):
            group.create_task(write())
    await store.close()


def _value(kind: str, obj: Namespace | Pod) -> bytes:
    return proto_codec.encode_envelope("v1", kind, obj.SerializeToString(deterministic=True))
