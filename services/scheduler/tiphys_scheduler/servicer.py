"""The gRPC face of the scheduler."""

from __future__ import annotations

from typing import Any

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from tiphys_apimachinery.errors import NotFound
from tiphys_client.informer import Informer
from tiphys_component.rpc import Servicer
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.scheduler import Scheduler


class SchedulerServicer(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Serves tiphys.scheduler.v1.SchedulerService."""

    def __init__(self, scheduler: Scheduler, pods: Informer[Pod, PodInfo]) -> None:
        self._scheduler = scheduler
        self._pods = pods

    async def ListQueue(self, request: scheduler_pb2.ListQueueRequest, context: Any) -> scheduler_pb2.ListQueueResponse:
        """Everything that waits."""
        found = [
            scheduler_pb2.QueuedPod(
                namespace=w.pod.namespace,
                name=w.pod.name,
                place=w.place,
                attempts=w.attempts,
                priority=w.pod.priority,
                refused_by=sorted(w.refused_by),
            )
            for w in self._scheduler.queue.snapshot()
        ]
        return scheduler_pb2.ListQueueResponse(pods=found)

    async def Explain(self, request: scheduler_pb2.ExplainRequest, context: Any) -> scheduler_pb2.ExplainResponse:
        """Verdict of each node. Raises NotFound for an unknown pod."""
        pod = self._pods.projection(f"{request.namespace}/{request.name}")
        if pod is None:
            raise NotFound(f'pods "{request.name}" not found')
        framework = self._scheduler.framework_of(pod)
        error = framework.explain(pod)
        scores = framework.scores(pod)
        verdicts = [
            scheduler_pb2.NodeVerdict(node=r.node, refused_by=r.plugin, reasons=r.reasons) for r in error.refusals
        ]
        verdicts += [scheduler_pb2.NodeVerdict(node=node, scores=found) for node, found in scores.items()]
        message = "" if scores else error.message
        return scheduler_pb2.ExplainResponse(message=message, nodes=sorted(verdicts, key=lambda v: v.node))


def servicer(scheduler: Scheduler, pods: Informer[Pod, PodInfo]) -> Servicer:
    """What the server registers."""
    name = scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name
    add = scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server
    return Servicer((name,), lambda server: add(SchedulerServicer(scheduler, pods), server))
