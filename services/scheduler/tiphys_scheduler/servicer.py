"""The gRPC face of the scheduler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from tiphys_apimachinery.errors import NotFound
from tiphys_client.informer import Informer
from tiphys_component.rpc import Servicer
from tiphys_scheduler.explain import NodeClass, explain, what_if
from tiphys_scheduler.framework.runtime import Framework
from tiphys_scheduler.pod_info import PodInfo, pod_info
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
        found = explain(framework, replace(pod, node=""), self._scheduler.cache.columns)
        return scheduler_pb2.ExplainResponse(
            message=found.message,
            best=found.best,
            best_score=found.score,
            bound=pod.node,
            classes=[_class(item) for item in found.classes],
            remedies=[
                scheduler_pb2.Remedy(text=item.text, nodes=item.nodes, example=item.example) for item in found.remedies
            ],
            nodes=_each_node(framework, pod) if request.every_node else (),
        )

    async def WhatIf(self, request: scheduler_pb2.WhatIfRequest, context: Any) -> scheduler_pb2.WhatIfResponse:
        """Where pods would go that do not exist yet."""
        pods = [_unborn(pod_info(message), number) for number, message in enumerate(request.pods)]
        if not pods:
            return scheduler_pb2.WhatIfResponse()
        outcomes = what_if(self._scheduler.cache, self._scheduler.framework_of(pods[0]), pods)
        return scheduler_pb2.WhatIfResponse(
            outcomes=[
                scheduler_pb2.Outcome(
                    namespace=item.pod.namespace,
                    name=item.pod.name,
                    node=item.node,
                    score=item.score,
                    message=item.message,
                    victims=item.victims,
                )
                for item in outcomes
            ]
        )


def _unborn(pod: PodInfo, number: int) -> PodInfo:
    """The pod under a key that no pod can have."""
    return replace(pod, key=f"{pod.namespace}/ what if {number}", uid=f"what-if-{number}", node="")


def _class(item: NodeClass) -> scheduler_pb2.NodeClass:
    refusals = [
        scheduler_pb2.PluginRefusal(plugin=plugin, reasons=reasons) for plugin, reasons in item.refusals.items()
    ]
    return scheduler_pb2.NodeClass(count=item.count, nodes=item.nodes, refusals=refusals, scores=item.scores)


def _each_node(framework: Framework, pod: PodInfo) -> list[scheduler_pb2.NodeVerdict]:
    verdicts = [
        scheduler_pb2.NodeVerdict(node=item.node, refused_by=item.plugin, reasons=item.reasons)
        for item in framework.explain(pod).refusals
    ]
    verdicts += [scheduler_pb2.NodeVerdict(node=node, scores=found) for node, found in framework.scores(pod).items()]
    return sorted(verdicts, key=lambda verdict: verdict.node)


def servicer(scheduler: Scheduler, pods: Informer[Pod, PodInfo]) -> Servicer:
    """What the server registers."""
    name = scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name
    add = scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server
    return Servicer((name,), lambda server: add(SchedulerServicer(scheduler, pods), server))
