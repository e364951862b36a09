"""The four ways of asking a container how it is.

Source: the documented behaviour. HTTP from 200 to 399 is success, redirects to another host are not followed; a command
is well with exit code 0; certificates are not checked.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

import aiohttp
import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from tiphys.api.core.v1.container_pb2 import Container, GRPCAction, HTTPGetAction, Probe, TCPSocketAction
from tiphys.api.intstr.intstr_pb2 import IntOrString
from tiphys_cri.errors import CRIError, CRITimeout
from tiphys_cri.interface import RuntimeService

USER_AGENT = "kube-probe/1.34"
MAX_BODY_BYTES = 10 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: a container, and the address of its pod."""

    container: Container
    container_id: str
    host: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one probe went."""

    ok: bool
    message: str = ""


async def run_probe(probe: Probe, target: Target, runtime: RuntimeService) -> Outcome:
    """Runs a probe once; whatever goes wrong is an outcome."""
    timeout_s = float(probe.timeoutSeconds or 1)
    handler = probe.handler
    if handler.HasField("exec"):
        return await _exec(list(handler.exec.command), target, runtime, timeout_s)
    if handler.HasField("httpGet"):
        return await http_get(handler.httpGet, target, timeout_s=timeout_s)
    if handler.HasField("tcpSocket"):
        return await _tcp(handler.tcpSocket, target, timeout_s)
    if handler.HasField("grpc"):
        return await _grpc(handler.grpc, target, timeout_s)
    return Outcome(False, "probe names no handler")


async def _exec(command: list[str], target: Target, runtime: RuntimeService, timeout_s: float) -> Outcome:
    try:
        result = await runtime.exec_sync(target.container_id, command, timeout_s=timeout_s)
    except CRITimeout:
        return Outcome(False, f'command timed out: "{" ".join(command)}" timed out after {timeout_s:g}s')
    except CRIError as err:
        return Outcome(False, err.wire_text)
    output = (result.stdout + result.stderr)[:MAX_BODY_BYTES].decode(errors="replace")
    return Outcome(result.exit_code == 0, output)


async def http_get(action: HTTPGetAction, target: Target, *, timeout_s: float) -> Outcome:
    """One request; used by probes and hooks."""
    port = port_number(action.port, target.container)
    if port is None:
        return Outcome(False, f"couldn't find port: {action.port.strVal}")
    scheme = (action.scheme or "HTTP").lower()
    host = action.host or target.host
    authority = f"[{host}]" if ":" in host else host
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"}
    headers |= {header.name: header.value for header in action.httpHeaders}
    url = f"{scheme}://{authority}:{port}{path}"
    connector = aiohttp.TCPConnector(ssl=_unchecked() if scheme == "https" else False, force_close=True)
    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            body = (await response.content.read(MAX_BODY_BYTES)).decode(errors="replace")
            if 200 <= response.status < 400:
                return Outcome(True, body)
            return Outcome(False, f"HTTP probe failed with statuscode: {response.status}")
    except TimeoutError:
        words = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Outcome(False, f'Get "{url}": {words}')
    except (aiohttp.ClientError, OSError, ValueError) as err:
        return Outcome(False, f'Get "{url}": {err}')


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _tcp(action: TCPSocketAction, target: Target, timeout_s: float) -> Outcome:
    port = port_number(action.port, target.container)
    if port is None:
        return Outcome(False, f"couldn't find port: {action.port.strVal}")
    host = action.host or target.host
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Outcome(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError as err:
        return Outcome(False, f"dial tcp {host}:{port}: connect: {(err.strerror or str(err)).lower()}")
    writer.close()
    return Outcome(True)


async def _grpc(action: GRPCAction, target: Target, timeout_s: float) -> Outcome:
    host = f"[{target.host}]" if ":" in target.host else target.host
    async with grpc.aio.insecure_channel(f"{host}:{action.port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(service=action.service), timeout=timeout_s)
        except grpc.aio.AioRpcError as err:
            return Outcome(False, f"service unhealthy: {err.code().name}: {err.details()}")
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return Outcome(serving, "" if serving else f"service unhealthy (responded with {answer.status})")


def port_number(port: IntOrString, container: Container) -> int | None:
    """The port of a probe: a number, or the name of one of the container's ports."""
    if port.type == 0:
        return port.intVal or None
    if port.strVal.isdigit():
        return int(port.strVal)
    return next((p.containerPort for p in container.ports if p.name == port.strVal), None)
