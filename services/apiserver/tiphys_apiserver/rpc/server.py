"""The gRPC door: one service for each resource, made of the same few classes, on every address that HTTPS has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.options import Options
from tiphys_apiserver.rpc.custom_services import CustomServices
from tiphys_apiserver.rpc.errors import map_error
from tiphys_apiserver.rpc.pod_streams import PodStreamMethods
from tiphys_apiserver.rpc.resource_service import ResourceService
from tiphys_apiserver.rpc.review_service import BindingService, ReadService, ReviewService
from tiphys_apiserver.rpc.special_methods import PodMethods, ScaleMethods, TokenMethods
from tiphys_apiserver.server.assembly import Assembly
from tiphys_component.rpc import Server, Servicer
from tiphys_component.tls import ClientAuth, TLSFiles, grpc_server_credentials


def service_name(info: ResourceInfo) -> str:
    """Full name of a resource's service; its group is the folder of the kind's contract."""
    folder = info.kind_info.file.split("/")[2]
    return f"tiphys.apiserver.{folder}.{info.version}.{info.kind}Service"


def make_services(parts: Assembly) -> Mapping[str, dict[str, Any]]:
    """Methods by service. Classes of messages are imported when a method is first called."""
    services: dict[str, dict[str, Any]] = {}
    answerers = parts.hall.answerers
    for served in parts.table:
        service = ResourceService(parts.hall, parts.chain, served)
        methods = service.methods()
        place = (served.info.group, served.info.plural)
        if place == ("", "pods"):
            methods |= PodMethods(service, parts.objects).methods()
            methods |= PodStreamMethods(service, parts.kubelets).methods()
        if "scale" in served.info.subresources:
            methods |= ScaleMethods(service).methods()
        token = answerers.get(("", "v1", "serviceaccounts/token"))
        if place == ("", "serviceaccounts") and token is not None:
            methods |= TokenMethods(service, token).methods()
        services[service_name(served.info)] = methods
    for info in parts.scheme.resources():
        answerer = answerers.get((info.group, info.version, info.plural))
        if answerer is not None:
            services[service_name(info)] = ReviewService(parts.chain, info, answerer).methods()
        elif (reader := parts.hall.readers.get((info.group, info.version, info.plural))) is not None:
            services[service_name(info)] = ReadService(parts.chain, reader).methods()
        elif (info.group, info.plural) == ("", "bindings"):
            pods = parts.table.find("", "v1", "pods")
            if pods is not None:
                services[service_name(info)] = BindingService(parts.hall, parts.chain, pods, info).methods()
    return services


@dataclass(frozen=True, slots=True)
class _Door:
    """One port on every address, and what it asks of callers."""

    port: int
    flag: str
    client_auth: ClientAuth


class RpcDoor:
    """gRPC servers on several addresses and ports, stopped together; the first is that for certificates."""

    def __init__(self, servers: list[Server]) -> None:
        self._servers = servers

    @property
    def port(self) -> int:
        """The port for callers with certificates."""
        return self._servers[0].port

    @property
    def token_port(self) -> int:
        """The port for callers with bearer tokens; the same one where there is no other."""
        return self._servers[-1].port

    async def stop(self) -> None:
        """Let calls in progress end within the grace time, cancel the rest."""
        for server in self._servers:
            await server.stop()


async def start_rpc(parts: Assembly, options: Options, serving: TLSFiles) -> RpcDoor:
    """Listen and serve. Raises StartupError where an address is taken."""
    services = make_services(parts)

    def register(server: Any) -> None:
        handlers = [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]
        server.add_generic_rpc_handlers([*handlers, CustomServices(parts.hall, parts.chain)])

    # Python's gRPC either requires a client certificate or does not ask for one. So callers with certificates and
    # callers with bearer tokens have a port each; without an authority to check certificates by, one serves all.
    with_certificates = ClientAuth.REQUIRED if options.client_ca_file is not None else ClientAuth.NONE
    doors = [_Door(options.grpc_port, "--grpc-port", with_certificates)]
    if options.grpc_token_port >= 0:
        doors.append(_Door(options.grpc_token_port, "--grpc-token-port", ClientAuth.NONE))
    servers: list[Server] = []
    for door in doors:
        port = door.port
        for host in options.hosts():
            bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            # Each port its own: the first to listen takes what the credentials start with, another would find nothing.
            credentials = grpc_server_credentials(serving, client_auth=door.client_auth)
            server = Server(bind, credentials, [Servicer(tuple(services), register)], map_error, flag=door.flag)
            await server.start()
            port = server.port
            servers.append(server)
    return RpcDoor(servers)
