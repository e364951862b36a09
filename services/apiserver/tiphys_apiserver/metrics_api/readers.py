"""The two resources of metrics.k8s.io. Nothing is stored: names and labels are those of nodes and pods as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.scheme import ResourceInfo, Scheme
from tiphys_apiserver.endpoints import list as listing
from tiphys_apiserver.metrics_api.figures import node_metrics, pod_metrics
from tiphys_apiserver.metrics_api.kubelets import Kubelets
from tiphys_apiserver.registry.table import ResourceTable
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.list_query import ListQuery
from tiphys_component.clock import Clock

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
# Whatever is in the cache: figures are some seconds old as well.
_ANY = ListQuery(resource_version="0")


class NodeMetricsReader:
    """What nodes use."""

    def __init__(self, info: ResourceInfo, table: ResourceTable, kubelets: Kubelets, clock: Clock) -> None:
        self.info = info
        self._nodes = table.of_class(node_pb2.Node)
        self._kubelets = kubelets
        self._clock = clock

    async def get(self, call: Call) -> Any:
        """One node. Raises NotFound where it is not there, or does not tell."""
        found = await self._nodes.store.cacher.get("", call.info.name, resource_version="0")
        made = await self._made([found.message()] if found is not None else [])
        if not made:
            raise NotFound.of(self.info.plural, call.info.name, group=GROUP)
        return made[0]

    async def list(self, call: Call) -> Sequence[Any]:
        """The nodes that the selectors choose and that tell."""
        page = await self._nodes.store.cacher.list(listing.selection_of(self._nodes, call), _ANY)
        made = await self._made([cached.message() for cached in page.items])
        if not call.label_selector and not call.field_selector:
            self._kubelets.keep(cached.name for cached in page.items)
        return made

    async def _made(self, nodes: Sequence[Any]) -> Sequence[Any]:
        told = await self._kubelets.figures(node.metadata.name for node in nodes)
        now = self._clock.now()
        found = ((node, told[node.metadata.name].node) for node in nodes)
        return [node_metrics(node, figures, now) for node, figures in found if figures is not None]


class PodMetricsReader:
    """What pods use. Only the kubelets are asked on whose nodes the chosen pods are."""

    def __init__(self, info: ResourceInfo, table: ResourceTable, kubelets: Kubelets, clock: Clock) -> None:
        self.info = info
        self._pods = table.of_class(pod_pb2.Pod)
        self._kubelets = kubelets
        self._clock = clock

    async def get(self, call: Call) -> Any:
        """One pod. Raises NotFound where it is not there, or nothing is known of what it uses."""
        info = call.info
        found = await self._pods.store.cacher.get(info.namespace, info.name, resource_version="0")
        made = await self._made([found.message()] if found is not None else [])
        if not made:
            raise NotFound.of(self.info.plural, f"{info.namespace}/{info.name}", group=GROUP)
        return made[0]

    async def list(self, call: Call) -> Sequence[Any]:
        """The running pods that namespace and selectors choose."""
        page = await self._pods.store.cacher.list(listing.selection_of(self._pods, call), _ANY)
        return await self._made([cached.message() for cached in page.items])

    async def _made(self, pods: Sequence[Any]) -> Sequence[Any]:
        placed = [pod for pod in pods if pod.spec.nodeName and pod.status.phase == "Running"]
        told = await self._kubelets.figures(pod.spec.nodeName for pod in placed)
        now = self._clock.now()
        found = ((pod, told[pod.spec.nodeName].pods.get(pod.metadata.uid)) for pod in placed)
        return [pod_metrics(pod, containers, now) for pod, containers in found if containers]


def readers(
    scheme: Scheme, table: ResourceTable, kubelets: Kubelets, clock: Clock
) -> tuple[NodeMetricsReader, PodMetricsReader]:
    """Both."""
    nodes, pods = (scheme.by_resource(GROUP, VERSION, plural) for plural in ("nodes", "pods"))
    if nodes is None or pods is None:
        raise LookupError(f"the contracts have no {GROUP}/{VERSION}")
    return NodeMetricsReader(nodes, table, kubelets, clock), PodMetricsReader(pods, table, kubelets, clock)
