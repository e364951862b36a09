"""What the runtime shows of a pod, as values; the one view that deciding, status and server share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tiphys_kubelet.runtime.limits import Limits


class ContainerPhase(Enum):
    """Where a container is in its life."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ContainerObservation:
    """One container as the runtime tells of it; times are nanoseconds since the epoch, 0 where there is none."""

    id: str
    name: str
    attempt: int
    sandbox_id: str
    phase: ContainerPhase
    created_at_ns: int = 0
    started_at_ns: int = 0
    finished_at_ns: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_ref: str = ""
    image_id: str = ""
    spec_hash: str = ""
    log_path: str = ""
    # What it may use, as the kernel or else the runtime has it; None where neither tells, and while it does not run.
    limits: Limits | None = None

    @property
    def is_running(self) -> bool:
        """It runs now."""
        return self.phase is ContainerPhase.RUNNING

    @property
    def is_alive(self) -> bool:
        """It runs, or nobody knows."""
        return self.phase in (ContainerPhase.RUNNING, ContainerPhase.UNKNOWN)


@dataclass(frozen=True, slots=True)
class SandboxObservation:
    """One sandbox as the runtime tells of it; addresses in the runtime's order, the first is the pod's main one."""

    id: str
    attempt: int
    ready: bool
    created_at_ns: int = 0
    ips: tuple[str, ...] = ()
    host_network: bool = False


@dataclass(frozen=True, slots=True)
class PodObservation:
    """All that the runtime has of one pod, newest first in both lists."""

    uid: str
    namespace: str = ""
    name: str = ""
    sandboxes: tuple[SandboxObservation, ...] = ()
    containers: tuple[ContainerObservation, ...] = ()

    @property
    def sandbox(self) -> SandboxObservation | None:
        """The newest sandbox."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def is_alive(self) -> bool:
        """Something of it runs, or holds the network."""
        return any(box.ready for box in self.sandboxes) or any(c.is_alive for c in self.containers)

    def latest(self, name: str) -> ContainerObservation | None:
        """The newest container of this name, in whichever sandbox."""
        return next((c for c in self.containers if c.name == name), None)

    def previous(self, name: str) -> ContainerObservation | None:
        """The container of this name before the newest."""
        return next((c for i, c in enumerate(self._named(name)) if i == 1), None)

    def active(self, name: str) -> ContainerObservation | None:
        """The newest container of this name in the newest sandbox, where only the living count."""
        sandbox_id = self.sandbox.id if self.sandbox else ""
        return next((c for c in self.containers if c.name == name and c.sandbox_id == sandbox_id), None)

    def _named(self, name: str) -> tuple[ContainerObservation, ...]:
        return tuple(c for c in self.containers if c.name == name)
