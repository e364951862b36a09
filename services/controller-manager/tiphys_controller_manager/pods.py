"""What the controllers need to know of a pod, made once for each version of it; the pod itself stays as bytes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.core.v1 import container_pb2, pod_pb2, scheduling_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.meta import find_condition, get_controller_of, is_being_deleted, join_key
from tiphys_apimachinery.resource_claims import PodClaim, pod_claims
from tiphys_controller_manager.job_facts import UNSETTLED_INDEX, JobFacts, is_of_job, job_facts, unsettled_keys

# Source: k8s.io/api core/v1, PodDeletionCost.
DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
NAMESPACE_INDEX: Final = "namespace"
CONTROLLER_INDEX: Final = "controller"
NODE_INDEX: Final = "node"
CLAIM_INDEX: Final = "claim"
DEVICE_CLAIM_INDEX: Final = "device claim"


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner that manages an object."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A container port that has a name."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Toleration:
    """One toleration; seconds is None where it holds for ever."""

    key: str
    operator: str
    value: str
    effect: str
    seconds: int | None


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod. Times are seconds since the epoch; ready_since is None when it is not ready.

    Pods of one template share their labels, which are read-only.
    """

    key: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    controller: Owner | None
    is_deleting: bool
    deletion_due: float
    phase: str
    node: str
    ready_since: float | None
    created: float
    finished: float
    restarts: int
    deletion_cost: int
    ips: tuple[str, ...]
    hostname: str
    subdomain: str
    ports: tuple[NamedPort, ...]
    tolerations: tuple[Toleration, ...]
    finalizers: tuple[str, ...]
    # Names of the claims it uses, in its namespace; of those the ephemeral ones are made for it.
    claims: tuple[str, ...] = ()
    ephemeral_claims: tuple[str, ...] = ()
    # The one node that it is made for, as a daemon is; empty where it may run on many.
    pinned_to: str = ""
    # Of pods that a Job manages.
    job: JobFacts | None = None
    # Claims of devices.
    resource_claims: tuple[PodClaim, ...] = ()

    @property
    def controller_uid(self) -> str:
        """The uid of the managing owner, empty for an orphan."""
        return self.controller.uid if self.controller is not None else ""

    @property
    def is_ready(self) -> bool:
        """Whether the condition Ready is True."""
        return self.ready_since is not None

    @property
    def is_finished(self) -> bool:
        """Whether its containers have ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_active(self) -> bool:
        """Whether it counts as one of its owner's replicas."""
        return not self.is_finished and not self.is_deleting

    def available_in(self, min_ready_s: int, *, now: float) -> float | None:
        """Seconds until it has been ready for so long, 0.0 once it has; None while it is not ready.

        Never more than min_ready_s: where the moment at which it became ready has not come yet, this machine's clock is
        behind the node's, and may be set right at any time. Without min_ready_s no clock is asked, as in Kubernetes.
        """
        if self.ready_since is None:
            return None
        return min(max(0.0, self.ready_since + min_ready_s - now), float(min_ready_s))


def pod_view(pod: pod_pb2.Pod) -> PodView:
    """The view of a pod."""
    metadata, status = pod.metadata, pod.status
    owner = get_controller_of(pod)
    ready = find_condition(status.conditions, "Ready")
    return PodView(
        key=join_key(metadata.namespace, metadata.name),
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resourceVersion,
        labels=_labels(tuple(metadata.labels.items())),
        controller=owner_of(owner) if owner is not None else None,
        is_deleting=is_being_deleted(pod),
        deletion_due=seconds(metadata.deletionTimestamp),
        phase=status.phase,
        node=pod.spec.nodeName,
        ready_since=seconds(ready.lastTransitionTime) if ready is not None and ready.status == "True" else None,
        created=seconds(metadata.creationTimestamp),
        finished=max((seconds(c.state.terminated.finishedAt) for c in status.containerStatuses), default=0.0),
        restarts=max((container.restartCount for container in status.containerStatuses), default=0),
        deletion_cost=_deletion_cost(metadata.annotations),
        ips=_ips(status),
        hostname=pod.spec.hostname,
        subdomain=pod.spec.subdomain,
        ports=tuple(
            NamedPort(port.name, port.protocol or "TCP", port.containerPort)
            for container in (*pod.spec.containers, *_sidecars(pod))
            for port in container.ports
            if port.name
        ),
        tolerations=tolerations_of(pod.spec),
        finalizers=tuple(metadata.finalizers),
        claims=tuple(claims_of(pod)),
        ephemeral_claims=tuple(ephemeral_claims_of(pod)),
        pinned_to=_pinned_to(pod.spec.affinity) if pod.spec.HasField("affinity") else "",
        job=job_facts(pod) if is_of_job(pod) else None,
        resource_claims=tuple(pod_claims(pod)) if pod.spec.resourceClaims else (),
    )


def claims_of(pod: pod_pb2.Pod) -> Iterable[str]:
    """The names of the claims that a pod uses, in its namespace."""
    for volume in pod.spec.volumes:
        if volume.volumeSource.HasField("persistentVolumeClaim"):
            yield volume.volumeSource.persistentVolumeClaim.claimName
    yield from ephemeral_claims_of(pod)


def ephemeral_claims_of(pod: pod_pb2.Pod) -> Iterable[str]:
    """The names of the claims that are made for the pod alone."""
    for volume in pod.spec.volumes:
        if volume.volumeSource.HasField("ephemeral"):
            yield f"{pod.metadata.name}-{volume.name}"


def tolerations_of(spec: pod_pb2.PodSpec) -> tuple[Toleration, ...]:
    """The tolerations of a pod; most pods have the same few, so each is kept once."""
    return tuple(_toleration(item.SerializeToString(deterministic=True)) for item in spec.tolerations)


def owner_of(reference: meta_pb2.OwnerReference) -> Owner:
    """The value of a reference; owners are shared by many pods, so each is kept once."""
    return _owner(reference.apiVersion, reference.kind, reference.name, reference.uid)


def seconds(time: meta_pb2.Time | meta_pb2.MicroTime) -> float:
    """The time in seconds since the epoch, 0 where it is not set."""
    return float(time.seconds) + time.nanos / 1e9


def pod_namespace_keys(pod: pod_pb2.Pod) -> Iterable[str]:
    """Index function: the namespace."""
    return (pod.metadata.namespace,)


def controller_keys(obj: Any) -> Iterable[str]:
    """Index function: the uid of the managing owner, or for an orphan its namespace behind a slash."""
    owner = get_controller_of(obj)
    return (owner.uid if owner is not None else orphans_in(obj.metadata.namespace),)


def pod_node_keys(pod: pod_pb2.Pod) -> Iterable[str]:
    """Index function: the node; pods without one are under the empty name."""
    return (pod.spec.nodeName,)


def pod_claim_keys(pod: pod_pb2.Pod) -> Iterable[str]:
    """Index function: the claims, by namespace and name."""
    return [join_key(pod.metadata.namespace, name) for name in claims_of(pod)]


def pod_device_claim_keys(pod: pod_pb2.Pod) -> Iterable[str]:
    """Index function: the claims of devices that it has, by namespace and name."""
    if not pod.spec.resourceClaims:
        return ()
    return [join_key(pod.metadata.namespace, item.claim) for item in pod_claims(pod) if item.claim]


def orphans_in(namespace: str) -> str:
    """The index key of objects that nobody manages."""
    return f"/{namespace}"


POD_INDEXES: Final = {
    NAMESPACE_INDEX: pod_namespace_keys,
    CONTROLLER_INDEX: controller_keys,
    NODE_INDEX: pod_node_keys,
    CLAIM_INDEX: pod_claim_keys,
    DEVICE_CLAIM_INDEX: pod_device_claim_keys,
    UNSETTLED_INDEX: unsettled_keys,
}


@functools.lru_cache(maxsize=4096)
def _owner(api_version: str, kind: str, name: str, uid: str) -> Owner:
    return Owner(api_version, kind, name, uid)


@functools.lru_cache(maxsize=4096)
def _labels(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return dict(items)


@functools.lru_cache(maxsize=1024)
def _toleration(raw: bytes) -> Toleration:
    item = scheduling_pb2.Toleration.FromString(raw)
    lasting = item.tolerationSeconds if item.HasField("tolerationSeconds") else None
    return Toleration(item.key, item.operator or "Equal", item.value, item.effect, lasting)


def _pinned_to(affinity: scheduling_pb2.Affinity) -> str:
    """The node that each term of the required affinity names by its field."""
    names = {
        requirement.values[0]
        for term in affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
        for requirement in term.matchFields
        if requirement.key == "metadata.name" and requirement.operator == "In" and len(requirement.values) == 1
    }
    return names.pop() if len(names) == 1 else ""


def _sidecars(pod: pod_pb2.Pod) -> list[container_pb2.Container]:
    return [container for container in pod.spec.initContainers if container.restartPolicy == "Always"]


def _ips(status: pod_pb2.PodStatus) -> tuple[str, ...]:
    found = tuple(address.ip for address in status.podIPs if address.ip)
    return found or ((status.podIP,) if status.podIP else ())


def _deletion_cost(annotations: Mapping[str, str]) -> int:
    try:
        return int(annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0
