"""Roads to kubelets: exec, attach, portforward and log of pods, and the proxies to nodes, pods and services."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from tiphys.api.core.v1 import node_pb2, pod_options_pb2
from tiphys_apimachinery.errors import BadRequest, NotFound, ServiceUnavailable
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.endpoints.get import get
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.fetch import Document, fetch
from tiphys_apiserver.rest.forward import forward
from tiphys_apiserver.rest.kubelet_streams import log_parameters, refusal
from tiphys_apiserver.rest.object_proxy import pod_target, service_target
from tiphys_apiserver.rest.tunnel import Target, tunnel
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.egress import Egress

# Source: kube-apiserver --kubelet-preferred-address-types, with addresses first: node names need not resolve here.
_ADDRESS_TYPES = ("InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS")
DEFAULT_PORT = 10250
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
# Names of query parameters here and at the kubelet. Source: kubelet pkg/server/remotecommand.
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
_LOG_OPTIONS = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")


class KubeletProxy:
    """Sends requests on to kubelets, showing the server's own client certificate. tls is None where there is none."""

    def __init__(
        self, hall: Hall, objects: ObjectAccess, tls: ssl.SSLContext | None, *, egress: Egress | None = None
    ) -> None:
        self._hall = hall
        self._objects = objects
        self._tls = tls
        self._egress = egress

    async def serve(self, exchange: Exchange, call: Call, served: Served) -> Any:
        """exec, attach, portforward or log of a pod. Raises NotFound, BadRequest, ServiceUnavailable."""
        info = call.info
        pod: Any = (await get(served, call)).message()
        if info.subresource != "log":
            await self._admit(call, served, pod)
        node = await self.node_of(pod)
        base = f"/{quote(info.namespace)}/{quote(info.name)}"
        if info.subresource == "log":
            return await forward(exchange, self._target(node, _log_path(exchange, pod, base)), refusal=refusal)
        if info.subresource == "portforward":
            ports = [value for name, value in parse_qsl(exchange.raw_query) if name in ("ports", "port")]
            path = f"/portForward{base}" + (f"?{urlencode([('port', port) for port in ports])}" if ports else "")
        else:
            path = _command_path(exchange, pod, info.subresource, base)
        return await tunnel(exchange, self._target(node, path))

    async def log_target(self, call: Call, served: Served, options: pod_options_pb2.PodLogOptions) -> Target:
        """Where the log of a container is read. Raises NotFound, BadRequest."""
        pod: Any = (await get(served, call)).message()
        container = choose_container(pod, options.container)
        parameters = log_parameters(options)
        query = f"?{urlencode(parameters)}" if parameters else ""
        path = f"/containerLogs/{quote(call.info.namespace)}/{quote(call.info.name)}/{quote(container)}{query}"
        return self._target(await self.node_of(pod), path)

    async def exec_target(self, call: Call, served: Served, options: pod_options_pb2.PodExecOptions) -> Target:
        """Where a command is run. Raises NotFound, BadRequest, and what admission raises."""
        pod: Any = (await get(served, call)).message()
        await self._admit(call, served, pod)
        container = choose_container(pod, options.container)
        if not options.command:
            raise BadRequest("you must specify at least one command for the container")
        parameters = [("command", word) for word in options.command] + [("output", "1")]
        parameters += [("input", "1")] * options.stdin + ([("tty", "1")] if options.tty else [("error", "1")])
        path = f"/exec/{quote(call.info.namespace)}/{quote(call.info.name)}/{quote(container)}?{urlencode(parameters)}"
        return self._target(await self.node_of(pod), path)

    async def proxy(self, exchange: Exchange, call: Call, served: Served) -> Any:
        """The proxy subresource: any request to a node's kubelet, a pod or a service.

        Location headers and links in pages are passed on as they are: a page must use relative ones.
        """
        info = call.info
        if not info.trailing and exchange.method in ("GET", "HEAD") and not exchange.raw_path.endswith("/"):
            # Else the page's relative links would lead to the neighbours of the object.
            query = f"?{exchange.raw_query}" if exchange.raw_query else ""
            return Answer(301, b"", "text/html", [("Location", f"{exchange.raw_path}/{query}")])
        path = "/" + quote(info.trailing) + (f"?{exchange.raw_query}" if exchange.raw_query else "")
        if served.info.plural == "nodes":
            node: Any = (await get(served, call)).message()
            await self._admit(call, served, node)
            return await self._send(exchange, self._target(node, path))
        find = {"pods": pod_target, "services": service_target}.get(served.info.plural)
        if find is None:
            raise NotFound.of_path()
        target = await find(self._objects, info.namespace, info.name, path)
        return await self._send(exchange, replace(target, egress=self._egress))

    async def _send(self, exchange: Exchange, target: Target) -> Any:
        if exchange.headers.get("Upgrade"):
            return await tunnel(exchange, target)
        return await forward(exchange, target)

    async def _admit(self, call: Call, served: Served, obj: Any) -> None:
        attributes = AdmissionAttributes(
            Operation.CONNECT, served.info, call.info.subresource, call.info.namespace, call.info.name, None, obj,
            call.user, False, None, call.warn, call.waited,
        )  # fmt: skip
        await self._hall.admission.validate(attributes)

    async def node_of(self, pod: Any) -> Any:
        """The node that the pod is on. Raises BadRequest for a pod without one."""
        name = pod.spec.nodeName
        if not name:
            raise BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
        return await self._objects.get(node_pb2.Node, name)

    def _target(self, node: Any, path: str) -> Target:
        return node_target(node, path, self._tls)


class KubeletDocuments:
    """Reads of kubelets on the server's own account."""

    def __init__(self, objects: ObjectAccess, tls: ssl.SSLContext | None) -> None:
        self._objects = objects
        self._tls = tls

    async def read(self, node: str, path: str) -> Document:
        """GET of a path. Raises NotFound for an unknown node, and what fetch raises."""
        found = await self._objects.get(node_pb2.Node, node)
        return await fetch(node_target(found, path, self._tls))


def node_target(node: Any, path: str, tls: ssl.SSLContext | None) -> Target:
    """Where the kubelet of a node answers. Raises ServiceUnavailable for a node that has not told an address (yet)."""
    addresses: Mapping[str, str] = {one.type: one.address for one in reversed(node.status.addresses)}
    host = next((addresses[kind] for kind in _ADDRESS_TYPES if kind in addresses), "")
    if not host:
        raise ServiceUnavailable(f"no preferred addresses found for node {node.metadata.name}")
    port = node.status.daemonEndpoints.kubeletEndpoint.Port or DEFAULT_PORT
    return Target(host, port, path, tls)


def choose_container(pod: Any, wanted: str) -> str:
    """The container that a request means. Raises BadRequest where that is not clear."""
    names = [one.name for one in pod.spec.containers]
    others = [one.name for one in pod.spec.initContainers] + [
        one.ephemeralContainerCommon.name for one in pod.spec.ephemeralContainers
    ]
    name = pod.metadata.name
    if wanted:
        if wanted not in names and wanted not in others:
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    chosen: str = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
    if chosen in names:
        return chosen
    if len(names) == 1:
        return str(names[0])
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
    if pod.spec.initContainers:
        text += f" or one of the init containers: [{' '.join(one.name for one in pod.spec.initContainers)}]"
    raise BadRequest(text)


def _command_path(exchange: Exchange, pod: Any, subresource: str, base: str) -> str:
    container = choose_container(pod, exchange.query.get("container", ""))
    parameters = [
        ("command", value) for name, value in parse_qsl(exchange.raw_query, keep_blank_values=True) if name == "command"
    ]
    parameters += [(there, "1") for here, there in _STREAMS.items() if exchange.flag(here)]
    if subresource == "exec" and not any(name == "command" for name, _ in parameters):
        raise BadRequest("you must specify at least one command for the container")
    if not any(name in ("input", "output", "error") for name, _ in parameters):
        raise BadRequest("you must specify at least one of stdin, stdout, stderr")
    return f"/{subresource}{base}/{quote(container)}?{urlencode(parameters)}"


def _log_path(exchange: Exchange, pod: Any, base: str) -> str:
    container = choose_container(pod, exchange.query.get("container", ""))
    for name in ("sinceSeconds", "tailLines", "limitBytes"):
        value = exchange.number(name)
        if value is not None and (value < 0 or (value == 0 and name != "tailLines")):
            raise BadRequest(f"PodLogOptions: {name}: Invalid value: {value}: must be greater than 0")
    if exchange.query.get("sinceSeconds") and exchange.query.get("sinceTime"):
        raise BadRequest("PodLogOptions: at most one of sinceTime or sinceSeconds may be specified")
    parameters = [(name, exchange.query[name]) for name in _LOG_OPTIONS if name in exchange.query]
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"/containerLogs{base}/{quote(container)}{query}"
