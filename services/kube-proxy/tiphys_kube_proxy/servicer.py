"""The gRPC face of kube-proxy."""

from __future__ import annotations

from typing import Any

from tiphys.kubeproxy.v1 import kubeproxy_pb2, kubeproxy_pb2_grpc
from tiphys_component.rpc import Servicer
from tiphys_kube_proxy.proxier import Proxier
from tiphys_kube_proxy.service_map import ServicePort


class KubeProxyServicer(kubeproxy_pb2_grpc.KubeProxyServiceServicer):
    """Serves tiphys.kubeproxy.v1.KubeProxyService."""

    def __init__(self, proxier: Proxier) -> None:
        self._proxier = proxier

    async def ListServicePorts(
        self, request: kubeproxy_pb2.ListServicePortsRequest, context: Any
    ) -> kubeproxy_pb2.ListServicePortsResponse:
        """What the kernel serves."""
        ports = [p for p in self._proxier.ports if request.namespace in ("", p.namespace)]
        return kubeproxy_pb2.ListServicePortsResponse(ports=[_message(p) for p in ports])

    async def Sync(self, request: kubeproxy_pb2.SyncRequest, context: Any) -> kubeproxy_pb2.SyncResponse:
        """Writes everything again."""
        return kubeproxy_pb2.SyncResponse(bytes_written=await self._proxier.sync(everything=True))


def _message(port: ServicePort) -> kubeproxy_pb2.ServicePort:
    return kubeproxy_pb2.ServicePort(
        namespace=port.namespace,
        service=port.name,
        port_name=port.port_name,
        protocol=port.protocol,
        port=port.port,
        cluster_ips=port.cluster_ips,
        node_port=port.node_port,
        endpoints=[f"{e.address}:{e.port}" for e in port.endpoints.cluster],
    )


def servicer(proxier: Proxier) -> Servicer:
    """What the server registers."""
    name = kubeproxy_pb2.DESCRIPTOR.services_by_name["KubeProxyService"].full_name
    return Servicer(
        (name,),
        lambda server: kubeproxy_pb2_grpc.add_KubeProxyServiceServicer_to_server(KubeProxyServicer(proxier), server),
    )
