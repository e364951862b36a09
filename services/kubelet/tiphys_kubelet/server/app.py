"""The HTTPS server on port 10250: which path is which, and who may."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import orjson
from aiohttp import web

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_component.app import listen_error
from tiphys_component.clock import Clock
from tiphys_component.zpages import FLAGZ, STATUSZ, ZPages
from tiphys_cri.errors import CRIError
from tiphys_cri.interface import RuntimeService, StreamRequest
from tiphys_kubelet.csi.volume_stats import VolumeUse
from tiphys_kubelet.observation import ContainerObservation, PodObservation
from tiphys_kubelet.pleg import PodLifecycle
from tiphys_kubelet.pod_spec import find_container
from tiphys_kubelet.server.auth import Guard
from tiphys_kubelet.server.logs import LogError, find_log, parse_options, stream_log
from tiphys_kubelet.server.metrics import KubeletMetrics
from tiphys_kubelet.server.stream_bridge import bridge_exec, bridge_port_forward, is_websocket
from tiphys_kubelet.server.tunnel import is_spdy, tunnel
from tiphys_kubelet.stats import exposition
from tiphys_kubelet.stats.sampler import UsageSampler
from tiphys_kubelet.stats.summary import summary

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_TRUE = ("1", "true", "t")


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What the server shows. `find_pod` takes namespace and name, `pods` gives all with their newest status."""

    node_name: str
    clock: Clock
    runtime: RuntimeService
    lifecycle: PodLifecycle
    guard: Guard
    metrics: KubeletMetrics
    find_pod: Callable[[str, str], Pod | None]
    pods: Callable[[], Sequence[Pod]]
    is_healthy: Callable[[], bool]
    started_at: datetime
    pages: ZPages
    sampler: UsageSampler
    volume_uses: Callable[[], Sequence[VolumeUse]] = tuple


class KubeletServer:
    """Serves until it is cancelled; `port` 0 lets the system choose, `bound_port` is what it chose."""

    def __init__(self, parts: ServerParts, address: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._parts = parts
        self._address = address
        self._port = port
        self._tls = tls
        self.bound_port = port
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Listens; raises StartupError if it can't."""
        runner = web.AppRunner(make_app(self._parts), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._address, self._port, ssl_context=self._tls)
            try:
                await site.start()
            except OSError as err:
                raise listen_error(err, f"{self._address}:{self._port}", "--port") from err
            self.bound_port = runner.addresses[0][1]
            self.listening.set()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


def make_app(parts: ServerParts) -> web.Application:
    """The application; every path but the health checks is guarded."""
    routes = _Routes(parts)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        code = 500
        try:
            if request.path not in ("/healthz", "/livez"):
                await parts.guard.admit(request)
            response = await handler(request)
            code = response.status
            return response
        except web.HTTPException as err:
            code = err.status
            raise
        except CRIError as err:
            raise web.HTTPInternalServerError(text=err.wire_text) from err
        finally:
            path = request.path.strip("/").split("/", 1)[0]
            parts.metrics.http_requests.labels(request.method, path, str(code)).inc()

    app = web.Application(middlewares=[guarded], client_max_size=1 << 20)
    app.router.add_get("/healthz", routes.healthz)
    app.router.add_get("/livez", routes.healthz)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/metrics/resource", routes.resource_metrics)
    app.router.add_get("/metrics/cadvisor", routes.cadvisor_metrics)
    app.router.add_get("/pods", routes.pods)
    app.router.add_get("/runningpods/", routes.pods)
    app.router.add_get("/stats/summary", routes.stats_summary)
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", routes.container_logs)
    app.router.add_get(STATUSZ, routes.statusz)
    app.router.add_get(FLAGZ, routes.flagz)
    streaming = {
        "/exec/{namespace}/{pod}/{container}": routes.exec,
        "/exec/{namespace}/{pod}/{uid}/{container}": routes.exec,
        "/attach/{namespace}/{pod}/{container}": routes.attach,
        "/attach/{namespace}/{pod}/{uid}/{container}": routes.attach,
        "/portForward/{namespace}/{pod}": routes.port_forward,
        "/portForward/{namespace}/{pod}/{uid}": routes.port_forward,
    }
    for path, handler in streaming.items():
        # SPDY clients post, WebSocket clients get.
        app.router.add_get(path, handler)
        app.router.add_post(path, handler)
    return app


class _Routes:
    """The handlers."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts

    async def healthz(self, request: web.Request) -> web.Response:
        if self._parts.is_healthy():
            return web.Response(text="ok")
        return web.Response(status=500, text="the runtime has not been listed for too long\n")

    async def statusz(self, request: web.Request) -> web.Response:
        return web.Response(text=self._parts.pages.statusz())

    async def flagz(self, request: web.Request) -> web.Response:
        return web.Response(text=self._parts.pages.flagz())

    async def metrics(self, request: web.Request) -> web.Response:
        return _text(self._parts.metrics.registry.render())

    async def pods(self, request: web.Request) -> web.Response:
        items = [to_json(pod, with_type_meta=False) for pod in self._parts.pods()]
        body = orjson.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
        return web.Response(body=body, content_type="application/json")

    async def resource_metrics(self, request: web.Request) -> web.Response:
        return _text(exposition.resource_metrics(await self._parts.sampler.sample()))

    async def cadvisor_metrics(self, request: web.Request) -> web.Response:
        return _text(exposition.cadvisor_metrics(await self._parts.sampler.sample()))

    async def stats_summary(self, request: web.Request) -> web.Response:
        parts = self._parts
        usage = await parts.sampler.usage()
        briefly = request.query.get("only_cpu_and_memory", "").lower() in _TRUE
        volumes = () if briefly else parts.volume_uses()
        document = summary(parts.node_name, usage, parts.started_at, volumes)
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    async def container_logs(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        name = request.match_info["container"]
        try:
            options = parse_options(request.query, self._parts.clock.now())
            run = find_log(pod, self._observation(pod), name, previous=options.previous)
        except LogError as err:
            raise web.HTTPBadRequest(text=str(err)) from err
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)

        def is_running() -> bool:
            return any(c.id == run.id and c.is_alive for c in self._observation(pod).containers)

        async with aclosing(stream_log(Path(run.log_path), options, is_running)) as pieces:
            async for piece in pieces:
                await response.write(piece)
        await response.write_eof()
        return response

    async def exec(self, request: web.Request) -> web.StreamResponse:
        target, streams = self._running(request), stream_request(request)
        command = request.query.getall("command", [])
        if not command:
            raise web.HTTPBadRequest(text="a command is required")
        self._demand_upgrade(request)
        url = await self._parts.runtime.exec_url(target.id, command, streams)
        return await self._serve(request, url, streams)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        target, streams = self._running(request), stream_request(request)
        container = find_container(self._pod(request), target.name)
        if container is not None and container.container.tty:
            # Whether there is a terminal was decided when the container was made, and then nothing ever comes on
            # stderr: a client that asks otherwise would wait for its end for ever.
            streams = replace(streams, tty=True, stderr=False)
        self._demand_upgrade(request)
        url = await self._parts.runtime.attach_url(target.id, streams)
        return await self._serve(request, url, streams)

    async def port_forward(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        sandbox = self._observation(pod).sandbox
        if sandbox is None or not sandbox.ready:
            raise web.HTTPBadRequest(text=f"pod {pod.metadata.name} has no running sandbox")
        self._demand_upgrade(request)
        lists = [*request.query.getall("port", []), *request.query.getall("ports", [])]
        texts = [text for part in lists for text in part.split(",") if text]
        if not all(text.isdigit() and 0 < int(text) < 65536 for text in texts):
            raise web.HTTPBadRequest(text=f"invalid ports {', '.join(texts)}")
        ports = [int(text) for text in texts]
        url = await self._parts.runtime.port_forward_url(sandbox.id, ports)
        if is_spdy(request):
            return await tunnel(request, url)
        return await bridge_port_forward(request, url, ports)

    async def _serve(self, request: web.Request, url: str, streams: StreamRequest) -> web.StreamResponse:
        return await (tunnel(request, url) if is_spdy(request) else bridge_exec(request, url, streams))

    def _demand_upgrade(self, request: web.Request) -> None:
        if not is_spdy(request) and not is_websocket(request):
            raise web.HTTPBadRequest(text="Upgrade request required")

    def _pod(self, request: web.Request) -> Pod:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._parts.find_pod(namespace, name)
        uid = request.match_info.get("uid", "")
        if pod is None or uid not in ("", pod.metadata.uid):
            raise web.HTTPNotFound(text=f'pod "{name}" in namespace "{namespace}" does not exist on this node')
        return pod

    def _running(self, request: web.Request) -> ContainerObservation:
        pod, name = self._pod(request), request.match_info["container"]
        target = self._observation(pod).active(name)
        if target is None or not target.is_running:
            raise web.HTTPBadRequest(text=f"container {name} not found in pod {pod.metadata.name}, or not running")
        return target

    def _observation(self, pod: Pod) -> PodObservation:
        return self._parts.lifecycle.observation(pod.metadata.uid)


def _text(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": exposition.CONTENT_TYPE})


def stream_request(request: web.Request) -> StreamRequest:
    """Which streams are wanted; the API's names and the kubelet's own are both understood. Raises HTTPBadRequest."""

    def asks(*names: str) -> bool:
        return any(request.query.get(name, "").lower() in _TRUE for name in names)

    tty = asks("tty")
    streams = StreamRequest(
        stdin=asks("stdin", "input"),
        stdout=asks("stdout", "output"),
        stderr=asks("stderr", "error") and not tty,
        tty=tty,
    )
    if not (streams.stdin or streams.stdout or streams.stderr):
        raise web.HTTPBadRequest(text="you must specify at least one of stdin, stdout and stderr")
    return streams
