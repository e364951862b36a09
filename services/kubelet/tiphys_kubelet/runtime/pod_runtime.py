"""Carries out what pod_state decided: makes and ends sandboxes and containers, and looks at what became of them.

After each step the picture of the pod is brought up to date at once, without waiting for an event or a relist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.service_pb2 import Service
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_apimachinery.quantity import Quantity
from tiphys_component.clock import Clock
from tiphys_component.proc import to_thread
from tiphys_cri.errors import CRIError, CRINotFound
from tiphys_cri.interface import RuntimeService
from tiphys_kubelet.api import EventSink
from tiphys_kubelet.objects import ObjectKey, Objects
from tiphys_kubelet.observation import ContainerObservation, PodObservation
from tiphys_kubelet.pleg import PodLifecycle
from tiphys_kubelet.pod_spec import DEFAULT_GRACE_S, ContainerKind, find_container
from tiphys_kubelet.pod_state import StartContainer
from tiphys_kubelet.resources.allocation import NotYet
from tiphys_kubelet.resources.endpoint import PluginFailure
from tiphys_kubelet.resources.grants import DeviceGrant
from tiphys_kubelet.resources.interface import NoDevices, PodDevices
from tiphys_kubelet.runtime import labels
from tiphys_kubelet.runtime.container_config import ContainerParts, ContainerSettings, container_config
from tiphys_kubelet.runtime.dns import hosts_file
from tiphys_kubelet.runtime.env import ConfigError, EnvContext, make_env
from tiphys_kubelet.runtime.hooks import HookError, HookRunner
from tiphys_kubelet.runtime.images import ImageError, ImagePuller, PulledImage
from tiphys_kubelet.runtime.sandbox_config import SandboxSettings, sandbox_config
from tiphys_kubelet.runtime.security import runs_as_non_root
from tiphys_kubelet.volumes.interface import VolumeError
from tiphys_kubelet.volumes.manager import MountedVolumes, VolumeManager

CONFIG_RETRY_S = 10.0
# What a container gets to end after its preStop hook has used up the grace period.
MIN_GRACE_AFTER_HOOK_S = 2


class StartError(Exception):
    """A container could not be started; the reason is what its status says."""

    def __init__(self, reason: str, message: str, retry_s: float = CONFIG_RETRY_S) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What every pod of the node gets."""

    pods_root: Path
    sandbox: SandboxSettings
    container: ContainerSettings
    cgroup_parent: Callable[[Pod], str] = lambda pod: ""
    # Makes the pod's own group with its limits; blocks, and raises OSError.
    make_group: Callable[[Pod], None] = lambda pod: None
    allocatable: Mapping[str, Quantity] = field(default_factory=dict)
    hosts_path: Path = Path("/etc/hosts")


@dataclass(frozen=True, slots=True)
class PodContext:
    """What was prepared for one pod before its containers start."""

    pod: Pod
    objects: Objects
    volumes: MountedVolumes
    services: Sequence[Service] = ()
    host_ips: Sequence[str] = ()


@dataclass(slots=True)
class PodRuntime:
    """The hands of the pod workers; has no state of its own."""

    runtime: RuntimeService
    images: ImagePuller
    lifecycle: PodLifecycle
    volumes: VolumeManager
    events: EventSink
    clock: Clock
    settings: NodeSettings
    devices: PodDevices = field(default_factory=NoDevices)

    async def create_sandbox(self, pod: Pod, attempt: int) -> None:
        """Makes the pod's sandbox. Raises CRIError."""
        config = self.sandbox_config(pod, attempt)
        await to_thread(self._make_places, pod, Path(config.log_directory))
        try:
            sandbox_id = await self.runtime.run_pod_sandbox(config)
        except CRIError as err:
            message = f"Failed to create pod sandbox: {err.wire_text}"
            self.events.event(pod, "Warning", "FailedCreatePodSandBox", message)
            raise
        await self.lifecycle.refresh_sandbox(sandbox_id)

    def _make_places(self, pod: Pod, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.settings.make_group(pod)

    def sandbox_config(self, pod: Pod, attempt: int) -> cri.PodSandboxConfig:
        """The configuration of the pod's sandbox."""
        config = sandbox_config(pod, attempt, self.settings.sandbox)
        config.linux.cgroup_parent = self.settings.cgroup_parent(pod)
        return config

    async def start_container(self, context: PodContext, action: StartContainer, observed: PodObservation) -> None:
        """Makes and starts a container, and runs its postStart hook. Raises StartError, ImageError or CRIError."""
        pod, container = context.pod, action.container
        sandbox = observed.sandbox
        if sandbox is None:
            raise StartError("CreateContainerError", "pod has no sandbox")
        image = await self.ensure_image(context, container)
        try:
            _check_user(pod, container, image)
        except StartError as err:
            self._failed(pod, container, err.message)
            raise
        grant = await self._devices(pod, container)
        env = {**grant.env, **self._env(context, container, sandbox.ips)}
        mounts = await self._mounts(context, container, env, pod_ips=sandbox.ips, attempt=action.attempt)
        parts = ContainerParts(
            attempt=action.attempt,
            image_ref=image.ref,
            env=env,
            mounts=[*mounts, *_beside(mounts, grant.mounts)],
            devices=(*grant.devices, *self._volume_devices(context, container)),
            annotations=grant.annotations,
            cdi_devices=grant.cdi_devices,
            target_id=self._target_id(pod, action, observed),
        )
        config = container_config(pod, container, parts, self.settings.container)
        try:
            container_id = await self.runtime.create_container(
                sandbox.id, config, self.sandbox_config(pod, sandbox.attempt)
            )
        except CRIError as err:
            if isinstance(err, CRINotFound):
                self.images.forget(container.image)
            self._failed(pod, container, err.wire_text)
            raise StartError("CreateContainerError", err.wire_text) from err
        self.events.event(pod, "Normal", "Created", f"Created container: {container.name}", container=container.name)
        await self._start(pod, container, container_id, sandbox.id)
        await self._post_start(pod, container, container_id, sandbox.ips)

    async def _devices(self, pod: Pod, container: Container) -> DeviceGrant:
        try:
            return await self.devices.prepare(pod, container)
        except PluginFailure as err:
            message = f"device plugin PreStartContainer rpc failed with err: {err}"
            self._failed(pod, container, message)
            raise StartError("CreateContainerConfigError", message) from err
        except NotYet as err:
            raise StartError("CreateContainerConfigError", str(err)) from err

    async def ensure_image(self, context: PodContext, container: Container) -> PulledImage:
        """Has the image on the node. Raises ImageError."""
        pod, name = context.pod, container.name
        try:
            self.images.check_name(container.image)
        except ImageError as err:
            self.events.event(pod, "Warning", "InspectFailed", err.message, container=name)
            self._failed(pod, container, err.reason)
            raise
        backing_off = self.images.back_off(container)
        present = await self.images.present(container)
        if present is not None:
            message = f'Container image "{container.image}" already present on machine'
            self.events.event(pod, "Normal", "Pulled", message, container=name)
            return present
        if backing_off is not None:
            message = f'Back-off pulling image "{container.image}"'
            self.events.event(pod, "Normal", "BackOff", message, container=name)
            self._failed(pod, container, backing_off.reason)
            raise backing_off
        if (container.imagePullPolicy or "") != "Never":
            self.events.event(pod, "Normal", "Pulling", f'Pulling image "{container.image}"', container=name)
        try:
            pulled = await self.images.pull(container, _pull_secrets(context))
        except ImageError as err:
            if err.reason == "ErrImagePull":
                message = f'Failed to pull image "{container.image}": {err.message}'
                self.events.event(pod, "Warning", "Failed", message, container=name)
            self._failed(pod, container, err.reason)
            raise
        took = f"{pulled.took_s or 0.0:.3g}s"
        message = (
            f'Successfully pulled image "{container.image}" in {took} ({took} including waiting). '
            f"Image size: {pulled.size_bytes} bytes."
        )
        self.events.event(pod, "Normal", "Pulled", message, container=name)
        return pulled

    async def kill_container(
        self, pod: Pod, target: ContainerObservation, *, grace_s: int | None, message: str, pod_ip: str = ""
    ) -> None:
        """Runs the preStop hook and stops the container, both within the grace period. Raises CRIError."""
        grace = grace_s if grace_s is not None else _own_grace(pod)
        text = message or f"Stopping container {target.name}"
        self.events.event(pod, "Normal", "Killing", text, container=target.name)
        started = self.clock.monotonic()
        ref = find_container(pod, target.name)
        if ref is not None and ref.container.lifecycle.HasField("preStop") and target.is_running and grace > 0:
            await self._pre_stop(pod, ref.container, target.id, pod_ip=pod_ip, grace_s=grace)
            used = self.clock.monotonic() - started
            grace = max(MIN_GRACE_AFTER_HOOK_S, round(grace - used))
        await self.runtime.stop_container(target.id, grace)
        await self.lifecycle.refresh_container(target.id)

    async def kill_pod(self, pod: Pod, observed: PodObservation, *, grace_s: int | None, message: str) -> None:
        """Stops all containers, sidecars in reverse order after the others, then the sandboxes. Raises CRIError."""
        deadline = self.clock.monotonic() + (grace_s if grace_s is not None else _own_grace(pod))
        ip = observed.sandbox.ips[0] if observed.sandbox is not None and observed.sandbox.ips else ""
        order = {c.name: i for i, c in enumerate(pod.spec.initContainers) if c.restartPolicy == "Always"}
        alive = [c for c in observed.containers if c.is_alive]
        waves = [[c for c in alive if c.name not in order]]
        waves += [[c] for c in sorted(alive, key=lambda c: -order.get(c.name, 0)) if c.name in order]
        for wave in waves:
            left_s = max(1, round(deadline - self.clock.monotonic()))
            async with asyncio.TaskGroup() as group:
                for container in wave:
                    group.create_task(self.kill_container(pod, container, grace_s=left_s, message=message, pod_ip=ip))
        for sandbox in observed.sandboxes:
            if sandbox.ready:
                await self.runtime.stop_pod_sandbox(sandbox.id)
                await self.lifecycle.refresh_sandbox(sandbox.id)

    async def remove_container(self, target: ContainerObservation) -> None:
        """Forgets a dead container and its log. Raises CRIError."""
        await self.runtime.remove_container(target.id)
        if target.log_path:
            await to_thread(Path(target.log_path).unlink, missing_ok=True)
        self.lifecycle.forget_container(target.id)

    async def remove_pod(self, observed: PodObservation) -> None:
        """Removes every sandbox with its containers. Raises CRIError."""
        for container in observed.containers:
            await self.runtime.remove_container(container.id)
        for sandbox in observed.sandboxes:
            await self.runtime.remove_pod_sandbox(sandbox.id)
            self.lifecycle.forget_sandbox(sandbox.id)
        for container in observed.containers:
            self.lifecycle.forget_container(container.id)

    def _env(self, context: PodContext, container: Container, pod_ips: Sequence[str]) -> dict[str, str]:
        env_context = EnvContext(
            objects=context.objects,
            services=context.services,
            pod_ips=context.host_ips if context.pod.spec.hostNetwork else pod_ips,
            host_ips=context.host_ips,
            allocatable=self.settings.allocatable,
        )
        try:
            return make_env(context.pod, container, env_context)
        except ConfigError as err:
            self._failed(context.pod, container, str(err))
            raise StartError("CreateContainerConfigError", str(err)) from err

    def _volume_devices(self, context: PodContext, container: Container) -> list[cri.Device]:
        try:
            return self.volumes.devices_of(container, context.volumes)
        except VolumeError as err:
            self._failed(context.pod, container, str(err))
            raise StartError("CreateContainerConfigError", str(err)) from err

    async def _mounts(
        self,
        context: PodContext,
        container: Container,
        env: Mapping[str, str],
        *,
        pod_ips: Sequence[str],
        attempt: int,
    ) -> list[cri.Mount]:
        try:
            mounts = await self.volumes.mounts_of(context.pod, container, context.volumes, env)
        except (VolumeError, OSError) as err:
            self._failed(context.pod, container, str(err))
            raise StartError("CreateContainerConfigError", str(err)) from err
        taken = {mount.container_path for mount in mounts}
        root = self.settings.pods_root / context.pod.metadata.uid
        message_path = container.terminationMessagePath or "/dev/termination-log"
        host_log = root / "containers" / container.name / f"{attempt}.message"
        await to_thread(_touch, host_log)
        log_root = labels.log_directory(self.settings.sandbox.log_root, context.pod)
        await to_thread((Path(log_root) / container.name).mkdir, parents=True, exist_ok=True)
        mounts.append(cri.Mount(container_path=message_path, host_path=str(host_log)))
        if "/etc/hosts" not in taken:
            hosts = root / "etc-hosts"
            domain = self.settings.sandbox.dns.cluster_domain
            node_hosts = await to_thread(_read, self.settings.hosts_path) if context.pod.spec.hostNetwork else ""
            text = hosts_file(context.pod, pod_ips, domain, node_hosts)
            await to_thread(_write_in_place, hosts, text)
            mounts.append(
                cri.Mount(
                    container_path="/etc/hosts",
                    host_path=str(hosts),
                    readonly=container.securityContext.readOnlyRootFilesystem,
                )
            )
        return mounts

    async def _start(self, pod: Pod, container: Container, container_id: str, sandbox_id: str) -> None:
        try:
            await self.runtime.start_container(container_id)
        except CRIError as err:
            self._failed(pod, container, err.wire_text)
            await self.lifecycle.refresh_container(container_id, sandbox_id)
            raise StartError("RunContainerError", err.wire_text, 0.0) from err
        await self.lifecycle.refresh_container(container_id, sandbox_id)
        self.events.event(pod, "Normal", "Started", f"Started container {container.name}", container=container.name)

    async def _post_start(self, pod: Pod, container: Container, container_id: str, ips: Sequence[str]) -> None:
        if not container.lifecycle.HasField("postStart"):
            return
        try:
            await HookRunner(self.runtime, self.clock).run(
                container.lifecycle.postStart, container, container_id, ips[0] if ips else "127.0.0.1"
            )
        except HookError as err:
            self.events.event(
                pod, "Warning", "FailedPostStartHook", f"PostStartHook failed: {err}", container=container.name
            )
            current = self.lifecycle.observation(pod.metadata.uid).latest(container.name)
            if current is not None:
                await self.kill_container(pod, current, grace_s=None, message="FailedPostStartHook")
            raise StartError("PostStartHookError", str(err), 0.0) from err

    async def _pre_stop(
        self, pod: Pod, container: Container, container_id: str, *, pod_ip: str, grace_s: float
    ) -> None:
        hooks = HookRunner(self.runtime, self.clock)
        try:
            async with asyncio.timeout(grace_s):
                await hooks.run(container.lifecycle.preStop, container, container_id, pod_ip or "127.0.0.1")
        except (HookError, TimeoutError) as err:
            text = str(err) or f"did not end within {timedelta(seconds=grace_s)}"
            self.events.event(
                pod, "Warning", "FailedPreStopHook", f"PreStopHook failed: {text}", container=container.name
            )

    def _target_id(self, pod: Pod, action: StartContainer, observed: PodObservation) -> str:
        """The container whose processes an ephemeral container wants to see."""
        if action.kind is not ContainerKind.EPHEMERAL:
            return ""
        targets = {c.ephemeralContainerCommon.name: c.targetContainerName for c in pod.spec.ephemeralContainers}
        target = observed.active(targets.get(action.container.name, ""))
        return target.id if target is not None else ""

    def _failed(self, pod: Pod, container: Container, what: str) -> None:
        self.events.event(pod, "Warning", "Failed", f"Error: {what}", container=container.name)


def _own_grace(pod: Pod) -> int:
    has_own = pod.spec.HasField("terminationGracePeriodSeconds")
    return max(1, pod.spec.terminationGracePeriodSeconds if has_own else DEFAULT_GRACE_S)


def _pull_secrets(context: PodContext) -> list[Secret]:
    namespace = context.pod.metadata.namespace
    keys = (ObjectKey(Secret, namespace, ref.name) for ref in context.pod.spec.imagePullSecrets)
    return [found for key in keys if isinstance(found := context.objects.get(key), Secret)]


def _check_user(pod: Pod, container: Container, image: PulledImage) -> None:
    """Refuses to run as root what must not."""
    if not runs_as_non_root(pod, container):
        return
    own = container.securityContext
    context = own if own.HasField("runAsUser") else pod.spec.securityContext
    if context.HasField("runAsUser"):
        if context.runAsUser == 0:
            raise StartError("CreateContainerConfigError", "container's runAsUser breaks non-root policy")
        return
    if image.username and not image.username.isdigit():
        raise StartError(
            "CreateContainerConfigError",
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
            "cannot verify user is non-root",
        )
    if not image.uid:
        raise StartError("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")


def _beside(mounts: Sequence[cri.Mount], more: Sequence[cri.Mount]) -> list[cri.Mount]:
    """Those that would not hide a mount that the pod itself asks for."""
    taken = {mount.container_path for mount in mounts}
    return [mount for mount in more if mount.container_path not in taken]


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    # Whoever the container runs as must be able to leave its message.
    path.chmod(0o666)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _write_in_place(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never replaced: running containers have this very file mounted.
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        path.chmod(0o644)
