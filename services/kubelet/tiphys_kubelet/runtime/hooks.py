"""Lifecycle hooks: what runs in or against a container after its start and before its end."""

from __future__ import annotations

from dataclasses import dataclass

from tiphys.api.core.v1.container_pb2 import Container, LifecycleHandler
from tiphys_component.clock import Clock
from tiphys_cri.errors import CRIError
from tiphys_cri.interface import RuntimeService
from tiphys_kubelet.probes.handlers import Target, http_get

HOOK_TIMEOUT_S = 120.0


class HookError(Exception):
    """The hook failed."""


@dataclass(frozen=True, slots=True)
class HookRunner:
    """Runs hooks."""

    runtime: RuntimeService
    clock: Clock

    async def run(self, handler: LifecycleHandler, container: Container, container_id: str, pod_ip: str) -> None:
        """Runs a hook to its end. Raises HookError."""
        if handler.HasField("exec"):
            command = list(handler.exec.command)
            try:
                result = await self.runtime.exec_sync(container_id, command, timeout_s=HOOK_TIMEOUT_S)
            except CRIError as err:
                raise HookError(err.wire_text) from err
            if result.exit_code != 0:
                output = (result.stdout + result.stderr).decode(errors="replace")
                raise HookError(f"command '{' '.join(command)}' exited with {result.exit_code}: {output}")
        elif handler.HasField("httpGet"):
            target = Target(container=container, container_id=container_id, host=pod_ip)
            outcome = await http_get(handler.httpGet, target, timeout_s=HOOK_TIMEOUT_S)
            if not outcome.ok:
                raise HookError(outcome.message)
        elif handler.HasField("sleep"):
            await self.clock.sleep(handler.sleep.seconds)
