"""What placing a pod depends on, read once from each version of the pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod, PodSpec
from tiphys.api.core.v1.scheduling_pb2 import NodeSelector, PreferredSchedulingTerm, Toleration
from tiphys.api.resource.quantity_pb2 import Quantity as QuantityMessage
from tiphys_apimachinery.meta import join_key
from tiphys_apimachinery.quantity import Quantity
from tiphys_apimachinery.resource_claims import pod_claims
from tiphys_scheduler.pod_terms import NO_TERMS, NOBODY, Identity, PodTerms, identity, pod_terms
from tiphys_scheduler.pod_volumes import Disk, disks

CPU, MEMORY, STORAGE, PODS = "cpu", "memory", "ephemeral-storage", "pods"
# What a container without a request counts as when nodes are scored.
# Source: kube-scheduler pkg/scheduler/util/pod_resources.go.
_DEFAULT_CPU_MILLIS = 100
_DEFAULT_MEMORY_BYTES = 200 * 1024 * 1024

# 4 Pi: thousands of such amounts on one node can be added up and taken by the hundred in the 64 bits of a column.
_MOST = 1 << 52

Port = tuple[str, str, int]
_Requests = Callable[[Container], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Needs:
    """All that decides where a pod may go; pods with equal needs share one class.

    requests are (resource, amount) with CPU in millis, pods included; scored the CPU millis and
    memory bytes that scoring counts. The serialized parts are there to be compared.
    """

    requests: tuple[tuple[str, int], ...]
    scored: tuple[int, int]
    ports: tuple[Port, ...]
    node_selector: tuple[tuple[str, str], ...]
    required_affinity: bytes
    preferred_affinity: tuple[bytes, ...]
    tolerations: tuple[bytes, ...]
    # Claims by namespace/name, of which the ephemeral ones are made for the pod and end with it.
    claims: tuple[str, ...] = ()
    ephemeral_claims: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    # What selectors of others see of the pod, and what it says of others itself.
    identity: Identity = NOBODY
    terms: PodTerms = NO_TERMS
    # Kind and name of the controller that made it.
    owner: tuple[str, str] = ("", "")
    # Names of the only nodes that required affinity lets it go to, where it says names; None where it does not.
    pinned_to: tuple[str, ...] | None = None
    # Of every container, init containers included.
    images: tuple[str, ...] = ()
    # Claims of devices: name in the pod, and namespace/name, empty for one that is still to be made. Of those the
    # generated ones, by their name in the pod, must be the pod's own.
    resource_claims: tuple[tuple[str, str], ...] = ()
    generated_claims: tuple[str, ...] = ()
    # Asked for several times a pod, and made of all the rest.
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        rest = (
            self.requests, self.scored, self.ports, self.node_selector, self.required_affinity, self.preferred_affinity,
            self.tolerations, self.claims, self.identity, self.terms, self.owner, self.images,
            self.resource_claims,
        )  # fmt: skip
        object.__setattr__(self, "_hash", hash(rest))

    def __hash__(self) -> int:
        return self._hash

    def awaited(self) -> tuple[str, ...]:
        """What the queue tells the pod of when it changes: claims of volumes, and of devices under a prefix."""
        if not self.resource_claims:
            return self.claims
        return (*self.claims, *(device_claim(key) for _, key in self.resource_claims if key))


@dataclass(frozen=True, slots=True)
class PodInfo:
    """One pod as the scheduler knows it. node is where it is bound, empty before."""

    key: str
    namespace: str
    name: str
    uid: str
    node: str
    priority: int
    scheduler_name: str
    is_gated: bool
    is_finished: bool
    is_deleting: bool
    created_s: int
    # Message of the condition PodScheduled=False that the pod has.
    refusal: str
    needs: Needs
    labels: Mapping[str, str] = field(default_factory=dict)
    # Names of the gates that hold it.
    gates: tuple[str, ...] = ()
    # PreemptLowerPriority or Never.
    preemption_policy: str = "PreemptLowerPriority"
    # Node where room is being made for it.
    nominated_node: str = ""
    # When its node took it on; 0 before.
    started_s: int = 0
    # Whether it ends because another pod needs its room.
    is_preempted: bool = False
    priority_class: str = ""
    # The generation of the spec that the needs are of; 0 where they are of more than spec, labels and owner.
    generation: int = 0

    def affinity(self) -> NodeSelector | None:
        """Required node affinity."""
        return NodeSelector.FromString(self.needs.required_affinity) if self.needs.required_affinity else None

    def preferences(self) -> list[PreferredSchedulingTerm]:
        """Preferred node affinity."""
        return [PreferredSchedulingTerm.FromString(raw) for raw in self.needs.preferred_affinity]

    def tolerations(self) -> list[Toleration]:
        """What the pod tolerates."""
        return [Toleration.FromString(raw) for raw in self.needs.tolerations]


def device_claim(key: str) -> str:
    """How a claim of devices is told from one of volumes in the queue."""
    return f"devices:{key}"


def amount(resource: str, text: str) -> int:
    """A quantity as the scheduler counts it: CPU in millis, everything else whole; more than anybody has is cut off."""
    quantity = Quantity.parse(text)
    return min(quantity.milli_value() if resource == CPU else quantity.value(), _MOST)


def pod_info(pod: Pod) -> PodInfo:
    """Reads a pod."""
    return info_of(pod, needs_of(pod, resized_of(pod)))


def owner_of(pod: Pod) -> tuple[str, str]:
    """Kind and name of the controller that made it."""
    return next(((o.kind, o.name) for o in pod.metadata.ownerReferences if o.controller), ("", ""))


def info_of(pod: Pod, needs: Needs, generation: int = 0) -> PodInfo:
    """What is known of a pod with these needs."""
    spec, metadata = pod.spec, pod.metadata
    refusal, is_preempted = conditions_of(pod)
    return PodInfo(
        key=f"{metadata.namespace}/{metadata.name}",
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        node=spec.nodeName,
        priority=spec.priority,
        scheduler_name=spec.schedulerName,
        is_gated=len(spec.schedulingGates) > 0,
        is_finished=pod.status.phase in ("Succeeded", "Failed"),
        is_deleting=metadata.HasField("deletionTimestamp"),
        created_s=metadata.creationTimestamp.seconds,
        refusal=refusal,
        needs=needs,
        labels=dict(metadata.labels),
        gates=tuple(gate.name for gate in spec.schedulingGates),
        preemption_policy=spec.preemptionPolicy or "PreemptLowerPriority",
        nominated_node=pod.status.nominatedNodeName,
        started_s=pod.status.startTime.seconds,
        is_preempted=is_preempted,
        priority_class=spec.priorityClassName,
        generation=generation,
    )


def conditions_of(pod: Pod) -> tuple[str, bool]:
    """The message of PodScheduled=False, and whether the pod ends by preemption."""
    refusal, is_preempted = "", False
    for condition in pod.status.conditions:
        match condition.type:
            case "PodScheduled":
                if condition.status == "False":
                    refusal = refusal or condition.message
            case "DisruptionTarget":
                is_preempted |= condition.status == "True" and condition.reason == "PreemptionByScheduler"
    return refusal, is_preempted


def needs_of(pod: Pod, resized: _Requests | None) -> Needs:
    """Read from a pod; resized is what resized_of says of it."""
    spec = pod.spec
    claims, ephemeral = _claims(pod)
    devices = tuple(pod_claims(pod)) if spec.resourceClaims else ()
    affinity = spec.affinity.nodeAffinity
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution
    has_required = affinity.HasField("requiredDuringSchedulingIgnoredDuringExecution")
    own = resized or _container_requests
    preferred = affinity.preferredDuringSchedulingIgnoredDuringExecution
    return Needs(
        requests=tuple(sorted(_requests(spec, own).items())),
        scored=_scored(spec, own),
        ports=tuple(sorted(_ports(spec))),
        node_selector=tuple(sorted(spec.nodeSelector.items())),
        required_affinity=required.SerializeToString(deterministic=True) if has_required else b"",
        preferred_affinity=tuple(p.SerializeToString(deterministic=True) for p in preferred),
        tolerations=tuple(t.SerializeToString(deterministic=True) for t in spec.tolerations),
        claims=claims,
        ephemeral_claims=ephemeral,
        disks=tuple(sorted(disks(spec))) if spec.volumes else (),
        identity=identity(pod),
        terms=pod_terms(pod),
        owner=owner_of(pod),
        pinned_to=_pinned_to(required) if has_required else None,
        images=tuple(_image_name(c.image) for c in (*spec.initContainers, *spec.containers)),
        resource_claims=tuple((c.name, join_key(pod.metadata.namespace, c.claim) if c.claim else "") for c in devices),
        generated_claims=tuple(c.name for c in devices if c.is_generated),
    )


def _pinned_to(required: NodeSelector) -> tuple[str, ...] | None:
    """What matchFields name, where every term names a node as those of DaemonSets do."""
    found: dict[str, None] = {}
    for term in required.nodeSelectorTerms:
        named = [f.values for f in term.matchFields if f.key == "metadata.name" and f.operator == "In"]
        if not named:
            return None
        found.update(dict.fromkeys(named[0]))
    return tuple(sorted(found))


def _image_name(name: str) -> str:
    """As nodes list it: with a tag."""
    return name if name.rfind(":") > name.rfind("/") else f"{name}:latest"


def _claims(pod: Pod) -> tuple[tuple[str, ...], tuple[str, ...]]:
    namespace = pod.metadata.namespace
    found: dict[str, None] = {}
    ephemeral: list[str] = []
    for volume in pod.spec.volumes:
        source = volume.volumeSource
        if source.HasField("persistentVolumeClaim"):
            found[f"{namespace}/{source.persistentVolumeClaim.claimName}"] = None
        elif source.HasField("ephemeral"):
            ephemeral.append(f"{namespace}/{pod.metadata.name}-{volume.name}")
    return (*found, *ephemeral), tuple(ephemeral)


def _container_requests(container: Container) -> dict[str, int]:
    return _amounts(container.resources.requests)


def resized_of(pod: Pod) -> _Requests | None:
    """How containers count that have, or may still have, something else than their spec asks for; None where none do.

    Of what the spec asks, what the node has set aside and what the container has, the most counts: a resize is under
    way. What its node can never give is no longer waited for.
    Source: Kubernetes component-helpers resource (PodRequests with UseStatusResources).
    """
    status = pod.status
    if not (status.containerStatuses or status.initContainerStatuses):
        return None
    told = {
        mine.name: mine
        for mine in (*status.containerStatuses, *status.initContainerStatuses)
        if mine.HasField("resources")
    }
    containers = (*pod.spec.containers, *pod.spec.initContainers)
    if all(
        (mine := told.get(container.name)) is None
        or container.resources.requests == mine.resources.requests == mine.allocatedResources
        for container in containers
    ):
        return None
    hopeless = any(c.type == "PodResizePending" and c.reason == "Infeasible" for c in status.conditions)

    def requests(container: Container) -> dict[str, int]:
        own = _container_requests(container)
        mine = told.get(container.name)
        if mine is None:
            return own
        has = [_amounts(mine.resources.requests), _amounts(mine.allocatedResources)]
        found = {name: max(amounts.get(name, 0) for amounts in has) for name in {*has[0], *has[1]}}
        if hopeless:
            return {**own, **found}
        return {name: max(own.get(name, 0), found.get(name, 0)) for name in {*own, *found}}

    return requests


def _amounts(quantities: Mapping[str, QuantityMessage]) -> dict[str, int]:
    return {name: amount(name, quantity.string) for name, quantity in quantities.items()}


def _requests(spec: PodSpec, own: _Requests) -> dict[str, int]:
    found = _effective(spec, own)
    for name, quantity in spec.overhead.items():
        found[name] = found.get(name, 0) + amount(name, quantity.string)
    found[PODS] = 1
    return {name: min(value, _MOST) for name, value in found.items() if value}


def _scored(spec: PodSpec, own: _Requests) -> tuple[int, int]:
    def with_defaults(container: Container) -> dict[str, int]:
        found = own(container)
        return {CPU: found.get(CPU, _DEFAULT_CPU_MILLIS), MEMORY: found.get(MEMORY, _DEFAULT_MEMORY_BYTES)}

    found = _effective(spec, with_defaults)
    overhead = {name: amount(name, quantity.string) for name, quantity in spec.overhead.items()}
    return found.get(CPU, 0) + overhead.get(CPU, 0), found.get(MEMORY, 0) + overhead.get(MEMORY, 0)


def _of_pod(spec: PodSpec) -> dict[str, int]:
    """What the pod requests as a whole, which goes before the sum of its containers."""
    if not spec.HasField("resources"):
        return {}
    requests = spec.resources.requests
    return {
        name: amount(name, quantity.string)
        for name, quantity in requests.items()
        if name in (CPU, MEMORY) or name.startswith("hugepages-")
    }


def _effective(spec: PodSpec, of: Callable[[Container], Mapping[str, int]]) -> dict[str, int]:
    """The sum of what runs together, or the largest moment while init containers run, whichever is more.

    Restartable init containers (sidecars) go on running and count from their turn on.
    """
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.initContainers:
        own = of(container)
        if container.restartPolicy == "Always":
            _add(sidecars, own)
            moment: Mapping[str, int] = sidecars
        else:
            moment = {n: own.get(n, 0) + sidecars.get(n, 0) for n in {*own, *sidecars}}
        for name, value in moment.items():
            peak[name] = max(peak.get(name, 0), value)
    total = dict(sidecars)
    for container in spec.containers:
        _add(total, of(container))
    found = {name: max(total.get(name, 0), peak.get(name, 0)) for name in {*total, *peak}}
    return found | _of_pod(spec)


def _add(target: dict[str, int], more: Mapping[str, int]) -> None:
    for name, value in more.items():
        target[name] = target.get(name, 0) + value


def _ports(spec: PodSpec) -> Iterable[Port]:
    for container in spec.containers:
        for port in container.ports:
            if port.hostPort:
                yield port.protocol or "TCP", port.hostIP or "0.0.0.0", port.hostPort
