"""The node's own object: registers it, and reports its status when that changes.

`make_status` is pure. The loop around it looks often until the node is ready and slowly from then on, and at once when
devices changed; the sign of life is not this status but the Lease (node_lease). Extended resources that somebody else
wrote into the capacity stay, and become allocatable.
Source: the documented conditions, with Kubernetes' reasons and messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tiphys.api.core.v1.node_pb2 import ContainerImage, Node, NodeAddress, NodeCondition, NodeStatus
from tiphys.api.core.v1.scheduling_pb2 import Taint
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import AlreadyExists, APIError, NotFound
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_cri.errors import CRIError
from tiphys_cri.interface import ImageService, RuntimeService
from tiphys_kubelet.api import ApiClient, EventSink
from tiphys_kubelet.machine import KUBELET_VERSION, Machine
from tiphys_kubelet.pod_status import to_time
from tiphys_kubelet.resources.allocation import is_extended

FAST_S = 0.1
SLOW_S = 10.0
# Without a change the status is written this often, so that its heartbeat times do not look dead.
REPORT_S = 300.0
MAX_IMAGES = 50
PLEG_THRESHOLD_S = 180.0
_WELL = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


# The conditions that the kubelet writes.
_OURS = ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who the node is, as its flags say."""

    name: str
    addresses: Sequence[str]
    port: int
    max_pods: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Taint] = ()


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What was found out now. `trouble` holds why the node is not ready, empty when it is."""

    machine: Machine
    runtime_version: str = ""
    images: Sequence[cri.Image] = ()
    trouble: Sequence[str] = ()
    # Capacity and allocatable of the resources of device plugins.
    devices: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def make_node(identity: NodeIdentity, machine: Machine) -> Node:
    """The node as it is registered."""
    node = Node()
    node.metadata.name = identity.name
    node.metadata.labels.update(default_labels(identity, machine) | dict(identity.labels))
    node.spec.taints.extend(identity.taints)
    return node


def default_labels(identity: NodeIdentity, machine: Machine) -> dict[str, str]:
    """The labels that every node has."""
    return {
        "kubernetes.io/hostname": identity.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": machine.architecture,
    }


def make_status(identity: NodeIdentity, facts: NodeFacts, previous: NodeStatus, now: datetime) -> NodeStatus:
    """The status that should be reported now."""
    machine, status = facts.machine, NodeStatus()
    for name, amount in machine.capacity(identity.max_pods).items():
        status.capacity[name].string = str(amount)
    for name, amount in machine.allocatable(identity.max_pods).items():
        status.allocatable[name].string = str(amount)
    for name, whole in foreign_resources(previous, facts.devices).items():
        status.capacity[name].string = status.allocatable[name].string = whole
    for name, (capacity, allocatable) in facts.devices.items():
        status.capacity[name].string, status.allocatable[name].string = str(capacity), str(allocatable)
    status.addresses.extend(NodeAddress(type="InternalIP", address=address) for address in identity.addresses)
    status.addresses.append(NodeAddress(type="Hostname", address=identity.name))
    status.daemonEndpoints.kubeletEndpoint.Port = identity.port
    info = status.nodeInfo
    info.machineID, info.systemUUID, info.bootID = machine.machine_id, machine.system_uuid, machine.boot_id
    info.kernelVersion, info.osImage, info.architecture = machine.kernel_version, machine.os_image, machine.architecture
    info.containerRuntimeVersion, info.kubeletVersion = facts.runtime_version, KUBELET_VERSION
    info.kubeProxyVersion, info.operatingSystem = "", "linux"
    status.images.extend(_images(facts.images))
    conditions = [
        NodeCondition(type=kind, status="False", reason=reason, message=words) for kind, reason, words in _WELL
    ]
    conditions.append(_ready(facts.trouble))
    status.conditions.extend(_stamped(condition, previous, now) for condition in conditions)
    return status


def foreign_resources(status: NodeStatus, devices: Mapping[str, object]) -> dict[str, str]:
    """Capacity of extended resources that no device plugin offers: an administrator wrote it."""
    return {
        name: amount.string for name, amount in status.capacity.items() if is_extended(name) and name not in devices
    }


def is_unsettled(status: NodeStatus, devices: Mapping[str, object]) -> bool:
    """Somebody else wrote a capacity that is not allocatable yet."""
    foreign = foreign_resources(status, devices)
    return any(status.allocatable[name].string != amount for name, amount in foreign.items())


def is_given_up(status: NodeStatus) -> bool:
    """The node controller has not heard of us for too long: Unknown is what no kubelet says of itself."""
    return any(item.type in _OURS and item.status == "Unknown" for item in status.conditions)


def _images(images: Sequence[cri.Image]) -> list[ContainerImage]:
    largest = sorted(images, key=lambda image: (-image.size, image.id))[:MAX_IMAGES]
    return [ContainerImage(names=[*i.repo_digests, *i.repo_tags], sizeBytes=i.size) for i in largest]


def _ready(trouble: Sequence[str]) -> NodeCondition:
    if trouble:
        return NodeCondition(type="Ready", status="False", reason="KubeletNotReady", message=", ".join(trouble))
    return NodeCondition(type="Ready", status="True", reason="KubeletReady", message="kubelet is posting ready status")


def _stamped(condition: NodeCondition, previous: NodeStatus, now: datetime) -> NodeCondition:
    condition.lastHeartbeatTime.CopyFrom(to_time(now))
    old = next((c for c in previous.conditions if c.type == condition.type), None)
    if old is not None and old.status == condition.status and old.HasField("lastTransitionTime"):
        condition.lastTransitionTime.CopyFrom(old.lastTransitionTime)
    else:
        condition.lastTransitionTime.CopyFrom(to_time(now))
    return condition


def runtime_trouble(status: cri.RuntimeStatus) -> list[str]:
    """Why a runtime can't run pods."""
    troubles = {"RuntimeReady": "container runtime is down", "NetworkReady": "container runtime network not ready"}
    found = []
    for condition in status.conditions:
        if not condition.status and condition.type in troubles:
            text = f"{condition.type}=false reason:{condition.reason} message:{condition.message}"
            found.append(f"{troubles[condition.type]}: {text}")
    return found


def plugin_trouble(said: str) -> str:
    """What a runtime would tell of a network plugin that says that it is not ready."""
    text = f"NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: {said}"
    return f"container runtime network not ready: {text}"


def status_change(before: NodeStatus, after: NodeStatus) -> dict[str, Any]:
    """What a strategic merge must be given; empty when only heartbeats differ. Pure."""
    old, new = to_json(before, with_type_meta=False), to_json(after, with_type_meta=False)
    change = {key: value for key, value in new.items() if key != "conditions" and old.get(key) != value}
    for key in change.keys() & {"capacity", "allocatable"}:
        # Merged by name: what is not named here stays, as another may have changed it since.
        known = old.get(key) or {}
        change[key] = {name: amount for name, amount in change[key].items() if known.get(name) != amount}
    if old.get("addresses") and "addresses" in change:
        change["addresses"] = [{"$patch": "replace"}, *change["addresses"]]
    if _without_heartbeats(old) != _without_heartbeats(new):
        change["conditions"] = new["conditions"]
    return change


def _without_heartbeats(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    conditions = [c for c in status.get("conditions") or [] if c["type"] in _OURS]
    return [{k: v for k, v in c.items() if k != "lastHeartbeatTime"} for c in conditions]


class NodeReporter:
    """Registers the node and keeps its status true; `run` for ever."""

    def __init__(
        self,
        identity: NodeIdentity,
        machine: Machine,
        *,
        client: ApiClient,
        runtime: RuntimeService,
        images: ImageService,
        clock: Clock,
        events: EventSink,
        relisted_at: Callable[[], float],
        on_node: Callable[[Node], None] = lambda node: None,
        devices: Callable[[], Mapping[str, tuple[int, int]]] = dict,
        network_trouble: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._identity = identity
        self._machine = machine
        self._client = client
        self._runtime = runtime
        self._images = images
        self._clock = clock
        self._events = events
        self._relisted_at = relisted_at
        self._on_node = on_node
        self._devices = devices
        self._network_trouble = network_trouble
        self._wake = asyncio.Event()
        # Our copy of the node is older than what somebody else wrote.
        self._stale = False
        self._node: Node | None = None
        self._written_at = float("-inf")
        self._ready = False
        self._log = get_logger("kubelet.node", node=identity.name)

    @property
    def is_ready(self) -> bool:
        """The last status said so."""
        return self._ready

    async def run(self) -> None:
        """Registers, then reports."""
        backoff = Backoff(0.2, 7.0)
        while True:
            self._wake.clear()
            try:
                await self._renew()
                if self._node is None:
                    self._node = await self._register()
                    self._on_node(self._node)
                    self._events.event(self._node, "Normal", "Starting", "Starting kubelet.")
                await self._report(self._node)
                backoff.reset()
            except APIError as err:
                if isinstance(err, NotFound):
                    self._node = None
                self._log.warning("node can't be reported", err=err.message)
                await self._clock.sleep(backoff.next())
                continue
            await self._sleep(SLOW_S if self._ready else FAST_S)

    def devices_changed(self) -> None:
        """Reports the node's devices at once."""
        self._wake.set()

    def observed(self, node: Node | None) -> None:
        """The API's node changed, or is gone."""
        if node is None or is_given_up(node.status) or is_unsettled(node.status, self._devices()):
            self._stale = True
            self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        timer = self._clock.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _renew(self) -> None:
        """Reads the node where another changed it. Raises APIError."""
        if self._stale and self._node is not None:
            self._node = await self._client.get(Node, self._identity.name)
        self._stale = False

    async def _register(self) -> Node:
        wanted = make_node(self._identity, self._machine)
        wanted.status.CopyFrom(make_status(self._identity, await self._facts(), NodeStatus(), self._clock.now()))
        try:
            node = await self._client.create(wanted)
            self._log.info("node registered")
        except AlreadyExists:
            node = await self._client.get(Node, self._identity.name)
            labels = {k: v for k, v in wanted.metadata.labels.items() if node.metadata.labels.get(k) != v}
            if labels:
                patch = {"metadata": {"labels": labels}}
                node = await self._client.patch(Node, self._identity.name, "", patch, type="strategic")
            self._log.info("node was registered before")
        return node

    async def _report(self, node: Node) -> None:
        status = make_status(self._identity, await self._facts(), node.status, self._clock.now())
        change = status_change(node.status, status)
        overdue = self._clock.monotonic() - self._written_at >= REPORT_S
        if overdue:
            change["conditions"] = to_json(status, with_type_meta=False)["conditions"]
        ready = not any(c.type == "Ready" and c.status != "True" for c in status.conditions)
        if change:
            self._node = await self._client.patch(
                Node, self._identity.name, "", {"status": change}, type="strategic", subresource="status"
            )
            self._on_node(self._node)
            self._written_at = self._clock.monotonic()
            if ready != self._ready:
                reason = "NodeReady" if ready else "NodeNotReady"
                message = f"Node {self._identity.name} status is now: {reason}"
                self._events.event(self._node, "Normal", reason, message)
        self._ready = ready

    async def _facts(self) -> NodeFacts:
        trouble: list[str] = []
        version, images = "", tuple[cri.Image, ...]()
        try:
            told = await self._runtime.version()
            version = f"{told.runtime_name}://{told.runtime_version.removeprefix('v')}"
            trouble += runtime_trouble(await self._runtime.status())
            if self._network_trouble is not None and (said := await self._network_trouble()):
                trouble.append(plugin_trouble(said))
            images = tuple(await self._images.list_images())
        except CRIError as err:
            trouble.append(f"container runtime is down: {err.message}")
        silent_s = self._clock.monotonic() - self._relisted_at()
        if silent_s > PLEG_THRESHOLD_S:
            trouble.append(f"PLEG is not healthy: pleg was last seen active {silent_s:.0f}s ago; threshold is 3m0s")
        return NodeFacts(self._machine, version, images, trouble, self._devices())
