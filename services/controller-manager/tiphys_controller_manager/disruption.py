"""Ends pods that did not ask for it, and says in their status why."""

from __future__ import annotations

from typing import Any

from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import format_time
from tiphys_client.client import Client
from tiphys_component.clock import Clock
from tiphys_controller_manager.pods import PodView


class PodEnder:
    """Deletes pods, and leaves the reason in the condition DisruptionTarget."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def end(self, pod: PodView, reason: str, message: str, *, force: bool = False) -> bool:
        """Delete this very pod; False if it is gone.

        force takes it out of the API at once and, where it has not ended, calls it Failed: nobody is left who would.
        Raises errors of the API.
        """
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": format_time(self._clock.now()),
        }
        status: dict[str, Any] = {"conditions": [condition]}
        if force and not pod.is_finished:
            status["phase"] = "Failed"
        patch = {"metadata": {"uid": pod.uid}, "status": status}
        grace_s = 0 if force else None
        place = (pod.name, pod.namespace)
        try:
            await self._client.patch(pod_pb2.Pod, *place, patch, type="strategic", subresource="status")
            await self._client.delete(pod_pb2.Pod, *place, grace_period_s=grace_s, preconditions_uid=pod.uid)
        except NotFound:
            return False
        return True
