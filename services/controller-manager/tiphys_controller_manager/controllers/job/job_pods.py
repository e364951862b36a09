"""Makes the pods of Jobs, and takes the finalizer off those that are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.meta import has_finalizer, new_controller_ref
from tiphys_client.client import Client
from tiphys_controller_manager.controllers.job.plan import NewPod
from tiphys_controller_manager.controllers.job.verdict import is_indexed
from tiphys_controller_manager.expectations import Expectations
from tiphys_controller_manager.job_facts import (
    INDEX,
    INDEX_FAILURES,
    INDEX_IGNORED_FAILURES,
    JOB_API_VERSION,
    JOB_KIND,
    TRACKING_FINALIZER,
)
from tiphys_controller_manager.pod_control import pod_from_template
from tiphys_controller_manager.pods import PodView

_INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
# Names end with five random characters; the index must not be cut off.
_MAX_PREFIX: Final = 253 - 6
# Patches in flight: enough to hide the way to the server, too few to crowd others out.
_AT_ONCE: Final = 16


def make_pod(job: batch_pb2.Job, wanted: NewPod) -> pod_pb2.Pod:
    """One pod of a Job."""
    template, name = job.spec.template, job.metadata.name
    suffix = "" if wanted.index is None else f"-{wanted.index}"
    prefix = name[: _MAX_PREFIX - len(suffix)] + suffix
    reference = new_controller_ref(job, JOB_API_VERSION, JOB_KIND)
    pod = pod_from_template(template, job.metadata.namespace, prefix, reference)
    if TRACKING_FINALIZER not in pod.metadata.finalizers:
        pod.metadata.finalizers.append(TRACKING_FINALIZER)
    if is_indexed(job.spec):
        for container in (*pod.spec.initContainers, *pod.spec.containers):
            _add_index_variable(container)
    if wanted.index is not None:
        pod.metadata.annotations[INDEX] = pod.metadata.labels[INDEX] = str(wanted.index)
        pod.spec.hostname = f"{name}-{wanted.index}"
    if wanted.failures is not None:
        pod.metadata.annotations[INDEX_FAILURES] = str(wanted.failures)
        if wanted.ignored_failures:
            pod.metadata.annotations[INDEX_IGNORED_FAILURES] = str(wanted.ignored_failures)
    return pod


def _add_index_variable(container: Any) -> None:
    if all(variable.name != _INDEX_VARIABLE for variable in container.env):
        variable = container.env.add(name=_INDEX_VARIABLE)
        variable.valueFrom.fieldRef.fieldPath = f"metadata.labels['{INDEX}']"


class Finalizers:
    """Takes the tracking finalizer off pods; key is that of the expectations."""

    def __init__(self, client: Client, expectations: Expectations) -> None:
        self._client = client
        self._expectations = expectations

    async def remove(self, key: str, pods: Iterable[PodView]) -> tuple[set[str], APIError | None]:
        """The uids of the pods that are free of it now, and the first error."""
        freed: set[str] = set()
        errors: list[APIError] = []
        waiting = iter([pod for pod in pods if TRACKING_FINALIZER in pod.finalizers])

        async def work() -> None:
            for pod in waiting:
                error = await self._remove(key, pod)
                if error is None:
                    freed.add(pod.uid)
                else:
                    errors.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
        return freed, errors[0] if errors else None

    async def _remove(self, key: str, pod: PodView) -> APIError | None:
        # Seen on the pod itself, and not by version: a pod that was only kept by this is gone afterwards.
        self._expectations.changing(key, [pod], _is_free)
        patch = {"metadata": {"uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER]}}
        try:
            await self._client.patch(pod_pb2.Pod, pod.name, pod.namespace, patch, type="strategic")
        except NotFound:
            return None
        except APIError as err:
            self._expectations.not_changed(key, pod)
            return err
        return None


def _is_free(pod: Any) -> bool:
    return not has_finalizer(pod, TRACKING_FINALIZER)
