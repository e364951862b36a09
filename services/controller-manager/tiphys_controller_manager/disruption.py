"""Ends pods that did not ask for it, and says in their status why."""

from __future__ import annotations

from typing import Any

from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import format_time
from tiphys_client.client import Client
from tiphys_component.clock import Clock
from tiphys_controller_manager.pods import PodView


async def end_pod(
    client: Client, clock: Clock, pod: PodView, reason: str, message: str, *, force: bool = False
) -> bool:
    """Set the condition DisruptionTarget and delete this very pod; False if it is gone.

    force takes it out of the API at once and, where it has not ended, calls it Failed: nobody is left who would.
    Raises errors of the API.
    """
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(clock.now()),
    }
    status: dict[str, Any] = {"conditions": [condition]}
    if force and not pod.is_finished:
        status["phase"] = "Failed"
    patch = {"metadata": {"uid": pod.uid}, "status": status}
    try:
        await client.patch(pod_pb2.Pod, pod.name, pod.namespace, patch, type="strategic", subresource="status")
        await client.delete(
            pod_pb2.Pod,
            pod.name,
            pod.namespace,
            grace_period_s=0 if force else None,
            preconditions_uid=pod.uid,
        )
    except NotFound:
        return False
    return True
