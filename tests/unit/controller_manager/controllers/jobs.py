"""Jobs to try, and a kubelet's hand for their pods."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from tests.unit.controller_manager.harness import House
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.codec.json_codec import from_json
from tiphys_apimachinery.meta import find_condition, is_being_deleted, to_time
from tiphys_controller_manager.job_facts import INDEX, TRACKING_FINALIZER

JOB = "job-controller"


UID_LABEL = "batch.kubernetes.io/controller-uid"


def job(name: str = "pi", *, restart: str = "Never", **spec: Any) -> batch_pb2.Job:
    """A Job whose pods have a node at once; further fields of its spec as in YAML."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"nodeName": "n1", "restartPolicy": restart, "containers": [{"name": "c", "image": "busybox"}]},
    }
    metadata = {"name": name, "namespace": "default"}
    return from_json(batch_pb2.Job, {"metadata": metadata, "spec": {"template": template, **spec}})


async def submit(built: House, made: batch_pb2.Job) -> batch_pb2.Job:
    """Have the Job made as the API server makes it: with its defaults, and the selector by its uid."""
    spec = made.spec
    if not spec.HasField("completions") and not spec.HasField("parallelism"):
        spec.completions = 1
    if not spec.HasField("parallelism"):
        spec.parallelism = 1
    if not spec.HasField("backoffLimit"):
        spec.backoffLimit = 2**31 - 1 if spec.HasField("backoffLimitPerIndex") else 6
    if not spec.HasField("podReplacementPolicy"):
        spec.podReplacementPolicy = "Failed" if spec.HasField("podFailurePolicy") else "TerminatingOrFailed"
    for rule in spec.podFailurePolicy.rules:
        for pattern in rule.onPodConditions:
            pattern.status = pattern.status or "True"
    made.metadata.uid = str(uuid.uuid4())
    spec.template.metadata.labels[UID_LABEL] = made.metadata.uid
    spec.selector.matchLabels[UID_LABEL] = made.metadata.uid
    built.client.seed(made)
    await built.settle()
    return built.client.stored(batch_pb2.Job, made.metadata.name, made.metadata.namespace)


async def stored(built: House, name: str = "pi") -> Any:
    """The Job as it is now."""
    return await built.client.get(batch_pb2.Job, name, "default")


async def end(built: House, pod: Any, code: int = 0, *, reason: str = "", ahead_s: float = 0.0) -> None:
    """The pod's container ends with this code, now; reason is that of a condition DisruptionTarget.

    ahead_s is by how much the clock of its machine is ahead.
    """
    pod.status.phase = "Succeeded" if code == 0 else "Failed"
    del pod.status.conditions[:]
    if reason:
        pod.status.conditions.add(type="DisruptionTarget", status="True", reason=reason)
    del pod.status.containerStatuses[:]
    state = pod.status.containerStatuses.add(name="c").state.terminated
    state.exitCode = code
    state.finishedAt.CopyFrom(to_time(built.clock.now() + datetime.timedelta(seconds=ahead_s)))
    await built.client.update_status(pod)


async def running(built: House) -> list[Any]:
    """The pods that have not ended and are not being deleted."""
    return [pod for pod in await built.pods() if _is_alive(pod)]


async def end_all(built: House, code: int = 0) -> int:
    """All that run end; how many those were."""
    pods = await running(built)
    for pod in pods:
        await end(built, pod, code)
    await built.settle()
    return len(pods)


async def bury(built: House) -> None:
    """Do what a kubelet does with pods that are being deleted: end them, and let them go."""
    for pod in await built.pods():
        if is_being_deleted(pod):
            if pod.status.phase not in ("Succeeded", "Failed"):
                await end(built, pod, 143)
            await built.client.delete(pod_pb2.Pod, pod.metadata.name, pod.metadata.namespace, grace_period_s=0)
    await built.settle()


def condition(found: Any, kind: str) -> str:
    """The reason of a condition that is True, or its status; empty where there is none."""
    known: Any = find_condition(found.status.conditions, kind)
    return "" if known is None else (known.reason or kind) if known.status == "True" else known.status


def index_of(pod: Any) -> int:
    """The completion index of a pod."""
    return int(pod.metadata.annotations[INDEX])


def is_held(pod: Any) -> bool:
    """Whether the pod has still to be counted."""
    return TRACKING_FINALIZER in pod.metadata.finalizers


def _is_alive(pod: Any) -> bool:
    return pod.status.phase not in ("Succeeded", "Failed") and not is_being_deleted(pod)
