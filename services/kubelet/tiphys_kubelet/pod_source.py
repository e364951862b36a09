"""Which pods this node is to run: those that the API has bound to it, and static ones from a directory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.clock import Clock
from tiphys_kubelet.pod_workers import PodWorkers

ORPHANS_S = 60.0


class PodSource:
    """Follows the API's pods of one node and hands them to the workers; `run` for ever."""

    def __init__(self, client: Client, clock: Clock, node_name: str) -> None:
        self._clock = clock
        self._again = asyncio.Event()
        self._informer: Informer[Pod, object] = Informer(
            client, Pod, field_selector=f"spec.nodeName={node_name}", clock=clock
        )

    async def run(self) -> None:
        """Keeps the copy true."""
        await self._informer.run()

    async def hand_over(self, workers: PodWorkers) -> None:
        """Waits for the first list, gives every pod to its worker, then follows; and ends what nobody wants."""
        await self._informer.wait_synced()
        self._informer.add_handler(
            on_add=workers.update,
            on_update=lambda _, pod: workers.update(pod),
            on_delete=lambda pod: workers.remove(pod.metadata.uid),
        )
        while True:
            self._again.clear()
            await workers.end_orphans(self.uids())
            timer = self._clock.call_later(ORPHANS_S, self._again.set)
            try:
                await self._again.wait()
            finally:
                timer.cancel()

    def look_again(self) -> None:
        """What a pod that is gone has left may be taken away now."""
        self._again.set()

    def uids(self) -> Collection[str]:
        """The pods that the API has for this node."""
        return {pod.metadata.uid for pod in self._informer.list()}

    def find(self, namespace: str, name: str) -> Pod | None:
        """One pod."""
        return self._informer.get(f"{namespace}/{name}")

    def pods(self) -> Sequence[Pod]:
        """All pods."""
        return self._informer.list()

    def is_synced(self) -> bool:
        """The first list has arrived."""
        return self._informer.is_synced()
