"""A runtime in memory: for tests, and for hollow nodes that only pretend to run pods.

It passes the suite that containerd passes (tests/conformance/cri). Commands are not run but understood in a small way:
`true`, `false`, `sleep N`, `echo WORDS` and `sh -c "exit N"` end as they would, a path below /no/such can't be started,
and anything else runs until it is stopped. Logs are not written. Time is the clock's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

import grpc

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_component.clock import Clock, Timer
from tiphys_cri.containerd import normalized_name
from tiphys_cri.errors import CRIError, CRINotFound, CRITimeout, CRIUnimplemented
from tiphys_cri.interface import ExecResult, RuntimeEvent, RuntimeEventType, StreamRequest

KILLED = 137
START_ERROR = 128
QUEUE_EVENTS = 10_000


@dataclass(slots=True)
class _Container:
    sandbox_id: str
    config: cri.ContainerConfig
    created_at: int
    state: cri.ContainerState.ValueType = cri.CONTAINER_CREATED
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    timer: Timer | None = None


@dataclass(slots=True)
class _Sandbox:
    config: cri.PodSandboxConfig
    created_at: int
    ip: str
    ready: bool = True


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a command ends by itself: when and with what code."""

    after_s: float
    exit_code: int


def ending_of(command: Sequence[str]) -> _Ending | None:
    """How a command ends by itself; None if it runs until it is stopped."""
    words = list(command)
    if words[:2] == ["sh", "-c"] and len(words) == 3:
        words = words[2].split()
    match words:
        case ["true", *_] | ["echo", *_] | ["exit"]:
            return _Ending(0.0, 0)
        case ["false", *_]:
            return _Ending(0.0, 1)
        case ["exit", code] if code.isdigit():
            return _Ending(0.0, int(code))
        case ["sleep", seconds] if seconds.replace(".", "", 1).isdigit():
            return _Ending(float(seconds), 0)
    return None


class FakeRuntime:
    """RuntimeService in memory. `fail(call, error)` makes the next call of a name raise."""

    def __init__(self, clock: Clock, *, pod_cidr: str = "10.244.0.0/16", images: FakeImages | None = None) -> None:
        self._clock = clock
        self._addresses = (str(address) for address in ip_network(pod_cidr).hosts())
        self._ids = itertools.count(1)
        self._images = images
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._listeners: set[asyncio.Queue[RuntimeEvent]] = set()
        self._failures: dict[str, list[CRIError]] = {}
        self.calls: list[str] = []

    def fail(self, call: str, error: CRIError) -> None:
        """The next call of this name raises the error."""
        self._failures.setdefault(call, []).append(error)

    def exit(self, container_id: str, exit_code: int, *, reason: str = "") -> None:
        """Lets a container end by itself now."""
        container = self._container(container_id)
        if container.state == cri.CONTAINER_RUNNING:
            container.reason = reason
            self._end(container_id, container, exit_code)

    async def version(self) -> cri.VersionResponse:
        """Names itself."""
        self._note("version")
        return cri.VersionResponse(
            version="0.1.0", runtime_name="fake", runtime_version="1.0.0", runtime_api_version="v1"
        )

    async def status(self) -> cri.RuntimeStatus:
        """Always ready."""
        self._note("status")
        kinds = ("RuntimeReady", "NetworkReady")
        return cri.RuntimeStatus(conditions=[cri.RuntimeCondition(type=kind, status=True) for kind in kinds])

    async def run_pod_sandbox(self, config: cri.PodSandboxConfig, *, runtime_handler: str = "") -> str:
        """A sandbox with the next address."""
        self._note("run_pod_sandbox")
        host = config.linux.security_context.namespace_options.network == cri.NODE
        sandbox_id = self._new_id()
        self._sandboxes[sandbox_id] = _Sandbox(
            _copy_sandbox(config), self._now(), "" if host else next(self._addresses)
        )
        self._tell(sandbox_id, RuntimeEventType.STARTED)
        return sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Ends its containers and gives the address back."""
        self._note("stop_pod_sandbox")
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container_id, container in self._containers.items():
            if container.sandbox_id == sandbox_id and container.state == cri.CONTAINER_RUNNING:
                self._end(container_id, container, KILLED)
        if sandbox.ready:
            sandbox.ready, sandbox.ip = False, ""
            self._tell(sandbox_id, RuntimeEventType.STOPPED)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Forgets it with its containers."""
        self._note("remove_pod_sandbox")
        await self.stop_pod_sandbox(sandbox_id)
        for container_id in [key for key, c in self._containers.items() if c.sandbox_id == sandbox_id]:
            del self._containers[container_id]
        self._sandboxes.pop(sandbox_id, None)

    async def pod_sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatus:
        """One sandbox."""
        self._note("pod_sandbox_status")
        sandbox = self._sandbox(sandbox_id)
        status = cri.PodSandboxStatus(
            id=sandbox_id,
            metadata=sandbox.config.metadata,
            state=_sandbox_state(sandbox),
            created_at=sandbox.created_at,
            labels=sandbox.config.labels,
            annotations=sandbox.config.annotations,
        )
        status.network.ip = sandbox.ip
        options = status.linux.namespaces.options
        options.CopyFrom(sandbox.config.linux.security_context.namespace_options)
        return status

    async def list_pod_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[cri.PodSandbox]:
        """Those with all these labels."""
        self._note("list_pod_sandboxes")
        return [
            cri.PodSandbox(
                id=sandbox_id,
                metadata=sandbox.config.metadata,
                state=_sandbox_state(sandbox),
                created_at=sandbox.created_at,
                labels=sandbox.config.labels,
                annotations=sandbox.config.annotations,
            )
            for sandbox_id, sandbox in self._sandboxes.items()
            if _has(sandbox.config.labels, labels)
        ]

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        """A container that has not started."""
        self._note("create_container")
        self._sandbox(sandbox_id)
        if self._images is not None and await self._images.image_status(config.image.image) is None:
            raise CRINotFound(f'image "{config.image.image}": not found', code=grpc.StatusCode.NOT_FOUND)
        container_id = self._new_id()
        copy = cri.ContainerConfig()
        copy.CopyFrom(config)
        self._containers[container_id] = _Container(sandbox_id, copy, self._now())
        return container_id

    async def start_container(self, container_id: str) -> None:
        """Starts it; what ends by itself ends when the clock says so."""
        self._note("start_container")
        container = self._container(container_id)
        if container.state != cri.CONTAINER_CREATED:
            raise CRIError(f"container {container_id} is in state {cri.ContainerState.Name(container.state)}")
        command = [*container.config.command, *container.config.args]
        if command and command[0].startswith("/no/such"):
            container.state, container.reason = cri.CONTAINER_EXITED, "StartError"
            container.exit_code, container.finished_at = START_ERROR, self._now()
            container.message = f'exec: "{command[0]}": stat {command[0]}: no such file or directory: unknown'
            raise CRIError(f"failed to create containerd task: {container.message}")
        container.state, container.started_at = cri.CONTAINER_RUNNING, self._now()
        self._tell(container_id, RuntimeEventType.STARTED)
        ending = ending_of(command)
        if ending is not None:
            container.timer = self._clock.call_later(
                ending.after_s, lambda: self._end(container_id, container, ending.exit_code)
            )

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        """Ends it at once: nothing here ignores the stop signal."""
        self._note("stop_container")
        container = self._containers.get(container_id)
        if container is not None and container.state == cri.CONTAINER_RUNNING:
            self._end(container_id, container, KILLED)

    async def remove_container(self, container_id: str) -> None:
        """Forgets it."""
        self._note("remove_container")
        container = self._containers.get(container_id)
        if container is None:
            return
        if container.state == cri.CONTAINER_RUNNING:
            self._end(container_id, container, KILLED)
        del self._containers[container_id]

    async def list_containers(self, labels: Mapping[str, str] | None = None) -> Sequence[cri.Container]:
        """Those with all these labels."""
        self._note("list_containers")
        return [
            cri.Container(
                id=container_id,
                pod_sandbox_id=container.sandbox_id,
                metadata=container.config.metadata,
                image=container.config.image,
                image_ref=container.config.image.image,
                state=container.state,
                created_at=container.created_at,
                labels=container.config.labels,
                annotations=container.config.annotations,
            )
            for container_id, container in self._containers.items()
            if _has(container.config.labels, labels)
        ]

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """One container."""
        self._note("container_status")
        container = self._container(container_id)
        sandbox = self._sandboxes[container.sandbox_id]
        return cri.ContainerStatus(
            id=container_id,
            metadata=container.config.metadata,
            state=container.state,
            created_at=container.created_at,
            started_at=container.started_at,
            finished_at=container.finished_at,
            exit_code=container.exit_code,
            image=container.config.image,
            image_ref=container.config.image.image,
            reason=container.reason,
            message=container.message,
            labels=container.config.labels,
            annotations=container.config.annotations,
            mounts=container.config.mounts,
            log_path=f"{sandbox.config.log_directory}/{container.config.log_path}",
            resources=cri.ContainerResources(linux=container.config.linux.resources),
        )

    async def update_container_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        """Keeps what it is told."""
        self._note("update_container_resources")
        self._running(container_id)
        kept = self._container(container_id).config.linux.resources
        for member, value in resources.ListFields():
            # The fields that are told are whole numbers; what is not told stays.
            setattr(kept, member.name, value)

    async def reopen_container_log(self, container_id: str) -> None:
        """There is no log."""
        self._note("reopen_container_log")
        self._container(container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Ends as the same command in a container would."""
        self._note("exec_sync")
        self._running(container_id)
        if command and command[0].startswith("/no/such"):
            raise CRIError(f'failed to exec in container: exec: "{command[0]}": no such file or directory')
        ending = ending_of(command)
        if ending is None or ending.after_s > timeout_s:
            await self._clock.sleep(timeout_s)
            raise CRITimeout(f"command timed out after {timeout_s:g}s", code=grpc.StatusCode.DEADLINE_EXCEEDED)
        await self._clock.sleep(ending.after_s)
        output = " ".join(command[1:]).encode() + b"\n" if command[0] == "echo" else b""
        return ExecResult(ending.exit_code, output, b"")

    async def exec_url(self, container_id: str, command: Sequence[str], streams: StreamRequest) -> str:
        """There are no streams."""
        raise CRIUnimplemented("the runtime in memory has no streams", code=grpc.StatusCode.UNIMPLEMENTED)

    async def attach_url(self, container_id: str, streams: StreamRequest) -> str:
        """There are no streams."""
        raise CRIUnimplemented("the runtime in memory has no streams", code=grpc.StatusCode.UNIMPLEMENTED)

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """There are no streams."""
        raise CRIUnimplemented("the runtime in memory has no streams", code=grpc.StatusCode.UNIMPLEMENTED)

    async def update_pod_cidr(self, pod_cidr: str) -> None:
        """Takes the addresses of later sandboxes from this range."""
        self._note("update_pod_cidr")
        self._addresses = (str(address) for address in ip_network(pod_cidr).hosts())

    async def list_container_stats(self) -> Sequence[cri.ContainerStats]:
        """The running containers; none of them uses anything."""
        self._note("list_container_stats")
        running = {i: c for i, c in self._containers.items() if c.state == cri.CONTAINER_RUNNING}
        return [_no_use(container_id, container, self._now()) for container_id, container in running.items()]

    async def events(self) -> AsyncGenerator[RuntimeEvent]:
        """What happens from now on."""
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue(QUEUE_EVENTS)
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    def _end(self, container_id: str, container: _Container, exit_code: int) -> None:
        if container.state != cri.CONTAINER_RUNNING:
            return
        if container.timer is not None:
            container.timer.cancel()
        container.state, container.finished_at, container.exit_code = cri.CONTAINER_EXITED, self._now(), exit_code
        container.reason = container.reason or ("Completed" if exit_code == 0 else "Error")
        self._tell(container_id, RuntimeEventType.STOPPED)

    def _tell(self, runtime_id: str, kind: RuntimeEventType) -> None:
        for queue in self._listeners:
            # A reader that is so far behind finds out by listing, as with a real runtime.
            if not queue.full():
                queue.put_nowait(RuntimeEvent(runtime_id, kind))

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self._failures.get(call):
            raise self._failures[call].pop(0)

    def _sandbox(self, sandbox_id: str) -> _Sandbox:
        if sandbox_id not in self._sandboxes:
            raise CRINotFound(f'sandbox "{sandbox_id}": not found', code=grpc.StatusCode.NOT_FOUND)
        return self._sandboxes[sandbox_id]

    def _container(self, container_id: str) -> _Container:
        if container_id not in self._containers:
            raise CRINotFound(f'container "{container_id}": not found', code=grpc.StatusCode.NOT_FOUND)
        return self._containers[container_id]

    def _running(self, container_id: str) -> _Container:
        container = self._container(container_id)
        if container.state != cri.CONTAINER_RUNNING:
            raise CRIError(f"container {container_id} is not running")
        return container

    def _new_id(self) -> str:
        return f"{next(self._ids):064x}"

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000


@dataclass(slots=True)
class FakeImages:
    """ImageService in memory. What is in `registry` can be pulled; pulling anything else says that it is missing."""

    registry: set[str] = field(default_factory=set)
    present: dict[str, cri.Image] = field(default_factory=dict)

    def add(self, name: str, *, size_bytes: int = 1 << 20) -> None:
        """Puts an image on the node."""
        full = normalized_name(name)
        self.present[full] = cri.Image(id=f"sha256:{full.encode().hex():0<64.64}", repo_tags=[full], size=size_bytes)

    async def list_images(self) -> Sequence[cri.Image]:
        """All images."""
        return list(self.present.values())

    async def image_status(self, image: str) -> cri.Image | None:
        """By name or id."""
        by_id = (found for found in self.present.values() if found.id == image)
        return self.present.get(normalized_name(image)) or next(by_id, None)

    async def pull_image(
        self, image: str, *, auth: cri.AuthConfig | None = None, sandbox_config: cri.PodSandboxConfig | None = None
    ) -> str:
        """Takes it from the registry."""
        if normalized_name(image) not in {normalized_name(name) for name in self.registry}:
            text = f'failed to pull and unpack image "{normalized_name(image)}": not found'
            raise CRINotFound(text, code=grpc.StatusCode.NOT_FOUND)
        self.add(image)
        return self.present[normalized_name(image)].id

    async def remove_image(self, image: str) -> None:
        """Forgets it."""
        found = await self.image_status(image)
        for name in [name for name, one in self.present.items() if one is found]:
            del self.present[name]

    async def image_fs_info(self) -> Sequence[cri.FilesystemUsage]:
        """What all images take."""
        used = sum(image.size for image in self.present.values())
        usage = cri.FilesystemUsage(timestamp=0)
        usage.fs_id.mountpoint = "/fake"
        usage.used_bytes.value = used
        return [usage]


def _sandbox_state(sandbox: _Sandbox) -> cri.PodSandboxState.ValueType:
    return cri.SANDBOX_READY if sandbox.ready else cri.SANDBOX_NOTREADY


def _has(labels: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return all(labels.get(key) == value for key, value in (wanted or {}).items())


def _copy_sandbox(config: cri.PodSandboxConfig) -> cri.PodSandboxConfig:
    copy = cri.PodSandboxConfig()
    copy.CopyFrom(config)
    return copy


def _no_use(container_id: str, container: _Container, now_ns: int) -> cri.ContainerStats:
    config, none = container.config, cri.UInt64Value(value=0)
    return cri.ContainerStats(
        attributes=cri.ContainerAttributes(id=container_id, metadata=config.metadata, labels=config.labels),
        cpu=cri.CpuUsage(timestamp=now_ns, usage_core_nano_seconds=none),
        memory=cri.MemoryUsage(timestamp=now_ns, working_set_bytes=none, usage_bytes=none, rss_bytes=none),
    )
