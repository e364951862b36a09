"""The gRPC face of the kubelet: tiphys.kubelet.v1.KubeletService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc

from tiphys.kubelet.v1 import kubelet_pb2, kubelet_pb2_grpc
from tiphys_component.certificates import identity
from tiphys_component.rpc import Servicer
from tiphys_component.spdy.session import Stream, StreamReset
from tiphys_cri.interface import StreamRequest
from tiphys_cri.streaming import ExecStreams, exit_code, open_exec
from tiphys_kubelet.observation import PodObservation
from tiphys_kubelet.pod_state import Action, Plan
from tiphys_kubelet.pod_workers import PodWorkers
from tiphys_kubelet.server.app import ServerParts
from tiphys_kubelet.server.auth import ApiGuard, User
from tiphys_kubelet.server.log_file import LogOptions
from tiphys_kubelet.server.logs import LogError, find_log, stream_log

_Replies = AsyncIterator[kubelet_pb2.ExecResponse]


class KubeletServicer(kubelet_pb2_grpc.KubeletServiceServicer):
    """Shows what the HTTPS server shows, and explains pods; the same guard decides."""

    def __init__(self, parts: ServerParts, workers: PodWorkers, guard: ApiGuard) -> None:
        self._parts = parts
        self._workers = workers
        self._guard = guard

    async def ListPods(self, request: kubelet_pb2.ListPodsRequest, context: Any) -> kubelet_pb2.ListPodsResponse:
        """The node's pods."""
        await self._admit(context, "get", "pods")
        pods = [pod for pod in self._parts.pods() if request.namespace in ("", pod.metadata.namespace)]
        pods.sort(key=lambda pod: (pod.metadata.namespace, pod.metadata.name))
        return kubelet_pb2.ListPodsResponse(pods=pods)

    async def ExplainPod(self, request: kubelet_pb2.ExplainPodRequest, context: Any) -> kubelet_pb2.ExplainPodResponse:
        """One pod as its worker sees it."""
        await self._admit(context, "get", "proxy")
        pod = self._parts.find_pod(request.namespace, request.name)
        worker = self._workers.get(pod.metadata.uid) if pod is not None else None
        if pod is None or worker is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no pod {request.namespace}/{request.name} on this node")
            raise AssertionError("abort returns never")
        return explanation(self._parts.lifecycle.observation(pod.metadata.uid), worker.explain())

    async def StreamLogs(
        self, request: kubelet_pb2.StreamLogsRequest, context: Any
    ) -> AsyncIterator[kubelet_pb2.StreamLogsResponse]:
        """A container's log."""
        await self._admit(context, "get", "proxy")
        pod = self._parts.find_pod(request.namespace, request.pod)
        if pod is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no pod {request.namespace}/{request.pod} on this node")
            raise AssertionError("abort returns never")
        uid = pod.metadata.uid
        try:
            run = find_log(pod, self._parts.lifecycle.observation(uid), request.container, previous=request.previous)
        except LogError as err:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(err))
            raise AssertionError("abort returns never") from err
        options = LogOptions(
            follow=request.follow,
            tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
            timestamps=request.timestamps,
        )

        def is_running() -> bool:
            return any(c.id == run.id and c.is_alive for c in self._parts.lifecycle.observation(uid).containers)

        async with aclosing(stream_log(Path(run.log_path), options, is_running)) as pieces:
            async for piece in pieces:
                yield kubelet_pb2.StreamLogsResponse(data=piece)

    async def Exec(self, requests: AsyncIterator[kubelet_pb2.ExecRequest], context: Any) -> _Replies:
        """A command with its streams."""
        await self._admit(context, "create", "proxy")
        first = await anext(requests, None)
        if first is None or not first.HasField("start"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first request must have start")
            raise AssertionError("abort returns never")
        start = first.start
        pod = self._parts.find_pod(start.namespace, start.pod)
        target = self._parts.lifecycle.observation(pod.metadata.uid).active(start.container) if pod else None
        if target is None or not target.is_running:
            text = f"container {start.container} of pod {start.namespace}/{start.pod} does not run on this node"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
            raise AssertionError("abort returns never")
        wanted = StreamRequest(stdin=start.stdin, stdout=True, stderr=not start.tty, tty=start.tty)
        url = await self._parts.runtime.exec_url(target.id, list(start.command), wanted)
        async with open_exec(url, wanted) as streams:
            async for reply in _serve_exec(streams, requests):
                yield reply

    async def _admit(self, context: Any, verb: str, subresource: str) -> None:
        pem = (context.auth_context().get("x509_pem_cert") or [b""])[0]
        if not pem:
            return  # without TLS only a test, or the node's own loopback, can have called
        who = identity(pem)
        if not await self._guard.may(User(who.common_name, who.organizations), verb, subresource):
            text = f"user {who.common_name} may not {verb} nodes/{subresource}"
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, text)


async def _serve_exec(streams: ExecStreams, requests: AsyncIterator[kubelet_pb2.ExecRequest]) -> _Replies:
    replies: asyncio.Queue[kubelet_pb2.ExecResponse | None] = asyncio.Queue(32)

    async def copy(stream: Stream, name: str) -> None:
        while data := await stream.read():
            await replies.put(
                kubelet_pb2.ExecResponse(stdout=data) if name == "stdout" else kubelet_pb2.ExecResponse(stderr=data)
            )

    async def outputs() -> None:
        async with asyncio.TaskGroup() as group:
            if streams.stdout is not None:
                group.create_task(copy(streams.stdout, "stdout"))
            if streams.stderr is not None:
                group.create_task(copy(streams.stderr, "stderr"))
        await replies.put(kubelet_pb2.ExecResponse(exit_code=exit_code(await streams.status())))
        await replies.put(None)

    async with asyncio.TaskGroup() as group:
        group.create_task(outputs())
        feeding = group.create_task(_feed(streams, requests))
        while (reply := await replies.get()) is not None:
            yield reply
        feeding.cancel()


async def _feed(streams: ExecStreams, requests: AsyncIterator[kubelet_pb2.ExecRequest]) -> None:
    try:
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "stdin" and streams.stdin is not None:
                await streams.stdin.write(request.stdin)
            elif kind == "close_stdin" and streams.stdin is not None:
                await streams.stdin.close_write()
            elif kind == "resize":
                await streams.send_resize(request.resize.width, request.resize.height)
    except StreamReset:
        return  # the command has ended; what is sent to it now is lost


def explanation(observed: PodObservation, plan: Plan) -> kubelet_pb2.ExplainPodResponse:
    """The answer for one pod."""
    answer = kubelet_pb2.ExplainPodResponse(
        uid=observed.uid,
        actions=[describe(action) for action in plan.actions],
        waiting={name: f"{why.reason}: {why.message}".rstrip(": ") for name, why in plan.waiting.items()},
    )
    for box in observed.sandboxes:
        answer.sandboxes.add(id=box.id, attempt=box.attempt, ready=box.ready, ips=box.ips)
    for container in observed.containers:
        answer.containers.add(
            id=container.id,
            name=container.name,
            attempt=container.attempt,
            phase=container.phase.value,
            exit_code=container.exit_code,
            reason=container.reason,
            message=container.message,
        )
    if plan.wake_at is not None:
        answer.wake_at.FromDatetime(plan.wake_at)
    return answer


def describe(action: Action) -> str:
    """An action in a few words, such as StartContainer app."""
    target = getattr(action, "container", None) or getattr(action, "target", None)
    return f"{type(action).__name__} {target.name}" if target is not None else type(action).__name__


def servicer(parts: ServerParts, workers: PodWorkers, guard: ApiGuard) -> Servicer:
    """What the server registers."""
    name = kubelet_pb2.DESCRIPTOR.services_by_name["KubeletService"].full_name
    service = KubeletServicer(parts, workers, guard)
    return Servicer((name,), lambda server: kubelet_pb2_grpc.add_KubeletServiceServicer_to_server(service, server))
