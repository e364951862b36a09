"""What the kubelet may rely on of a runtime, whichever it is; the real one and the one in memory pass one suite.

Every call may be repeated: stopping what is stopped and removing what is gone succeed. Every call may raise CRIError
or a class below it; CRIUnavailable says nothing of whether the call was carried out. Ids are the runtime's own.
Messages are those of CRI v1 and belong to the caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tiphys.thirdparty.cri.v1 import api_pb2 as cri


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a container printed, and how it ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What an exec or attach session carries; stderr is never asked together with tty."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class RuntimeEventType(Enum):
    """What happened to a container or sandbox."""

    STARTED = "started"
    STOPPED = "stopped"
    DELETED = "deleted"
    OOM = "oom"


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something happened to the container, or sandbox, of this id; how it is now must be asked."""

    container_id: str
    type: RuntimeEventType


class RuntimeService(Protocol):
    """Sandboxes and containers."""

    async def version(self) -> cri.VersionResponse:
        """Name and version of the runtime; the first call that shows that it answers."""

    async def status(self) -> cri.RuntimeStatus:
        """The conditions RuntimeReady and NetworkReady, and others."""

    async def run_pod_sandbox(self, config: cri.PodSandboxConfig, *, runtime_handler: str = "") -> str:
        """Creates and starts a sandbox with its network; returns the id. Leaves nothing behind when it fails."""

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Kills every container in it and gives the network back."""

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Removes it with its containers, running or not."""

    async def pod_sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatus:
        """Raises CRINotFound."""

    async def list_pod_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[cri.PodSandbox]:
        """Those with all these labels, in no order."""

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        """Creates a container, not yet started; returns the id."""

    async def start_container(self, container_id: str) -> None:
        """When it fails the container is left exited, with reason and message in its status."""

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        """Sends the stop signal, after timeout_s the kill signal; returns when the container has exited.

        A second call with a shorter time-out takes effect at once if the first was cancelled.
        """

    async def remove_container(self, container_id: str) -> None:
        """Kills it if need be and removes it; its log file stays."""

    async def list_containers(self, labels: Mapping[str, str] | None = None) -> Sequence[cri.Container]:
        """Those with all these labels, in no order."""

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """Raises CRINotFound."""

    async def update_container_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        """Changes what a container may use while it runs; fields that are 0 stay as they are. Raises CRINotFound."""

    async def reopen_container_log(self, container_id: str) -> None:
        """Opens the log file anew after it was renamed."""

    async def exec_sync(self, container_id: str, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Runs a command to its end; raises CRITimeout after timeout_s, and the command is killed."""

    async def exec_url(self, container_id: str, command: Sequence[str], streams: StreamRequest) -> str:
        """A URL, good for one connection, on which the command's streams are served."""

    async def attach_url(self, container_id: str, streams: StreamRequest) -> str:
        """The same for the streams of the container itself."""

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """The same for connections to ports of the sandbox."""

    async def update_pod_cidr(self, pod_cidr: str) -> None:
        """Tells the runtime the node's range of pod addresses."""

    async def list_container_stats(self) -> Sequence[cri.ContainerStats]:
        """CPU, memory and disk use of the running containers."""

    def events(self) -> AsyncGenerator[RuntimeEvent]:
        """What happens from the first step of the iteration on, or a moment later.

        Ends by a CRIError when the runtime goes away, CRIUnimplemented if it has no events. What happened before and
        between two streams must be found out by listing.
        """


class ImageService(Protocol):
    """Images."""

    async def list_images(self) -> Sequence[cri.Image]:
        """All images of the runtime."""

    async def image_status(self, image: str) -> cri.Image | None:
        """None when it is not there."""

    async def pull_image(
        self, image: str, *, auth: cri.AuthConfig | None = None, sandbox_config: cri.PodSandboxConfig | None = None
    ) -> str:
        """Pulls it; returns the reference by which containers are made from it."""

    async def remove_image(self, image: str) -> None:
        """Removes it with all its tags."""

    async def image_fs_info(self) -> Sequence[cri.FilesystemUsage]:
        """Where images lie, and how much they take."""
