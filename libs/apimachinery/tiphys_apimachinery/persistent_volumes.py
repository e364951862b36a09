"""What binding claims to volumes depends on, and which volume fits a claim; shared by the binder and the scheduler.

Source: kubernetes component-helpers/storage/volume (pv_helpers.go, FindMatchingVolume) and
pkg/controller/volume/persistentvolume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.core.v1 import persistent_volume_claim_pb2, persistent_volume_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.labels import SelectorError, from_label_selector
from tiphys_apimachinery.meta import is_being_deleted, join_key
from tiphys_apimachinery.quantity import Quantity

BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
BETA_STORAGE_PROVISIONER: Final = "volume.beta.kubernetes.io/storage-provisioner"
# Both kinds may name their class by this older annotation; it goes before the field.
CLASS_ANNOTATION: Final = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS_ANNOTATIONS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
# The provisioner of classes whose volumes are made by hand.
NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"
WAIT_FOR_FIRST_CONSUMER: Final = "WaitForFirstConsumer"


@dataclass(frozen=True, slots=True)
class ClaimView:
    """One claim. requested is in bytes; selector is a serialized LabelSelector, None where the claim has none."""

    key: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    phase: str
    # The class asked for; empty for none.
    storage_class: str
    volume: str
    access_modes: tuple[str, ...]
    volume_mode: str
    requested: int
    selector: bytes | None
    is_bind_completed: bool
    is_volume_chosen: bool
    selected_node: str
    provisioner: str
    is_deleting: bool
    finalizers: tuple[str, ...]

    @property
    def is_bound(self) -> bool:
        """Whether both sides know of each other, as far as the claim tells."""
        return bool(self.volume) and self.is_bind_completed


@dataclass(frozen=True, slots=True)
class VolumeView:
    """One volume. claim is namespace/name of claimRef, empty without one; claim_uid may be empty in a reservation."""

    name: str
    uid: str
    resource_version: str
    phase: str
    storage_class: str
    access_modes: tuple[str, ...]
    volume_mode: str
    capacity: int
    labels: Mapping[str, str]
    claim: str
    claim_uid: str
    is_claim_chosen: bool
    is_provisioned: bool
    reclaim_policy: str
    # A serialized NodeSelector, empty where every node reaches the volume.
    node_affinity: bytes
    # The CSI driver and its handle, empty for other volumes.
    driver: str
    handle: str
    is_deleting: bool
    finalizers: tuple[str, ...]

    def is_for(self, claim: ClaimView) -> bool:
        """Whether claimRef names this very claim, or reserves the volume for whatever has its name."""
        return self.claim == claim.key and self.claim_uid in ("", claim.uid)


@dataclass(frozen=True, slots=True)
class ClassView:
    """One storage class."""

    name: str
    provisioner: str
    waits_for_consumer: bool
    # Each a tuple of (label, values); empty where volumes may be made anywhere.
    topologies: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...]
    is_default: bool = False
    created_s: float = 0.0

    @property
    def can_provision(self) -> bool:
        """Whether volumes of the class are made on demand."""
        return self.provisioner not in ("", NO_PROVISIONER)


def class_of(obj: Any) -> str:
    """The storage class of a claim or a volume, empty for none."""
    return str(obj.metadata.annotations.get(CLASS_ANNOTATION) or obj.spec.storageClassName)


def claim_view(claim: persistent_volume_claim_pb2.PersistentVolumeClaim) -> ClaimView:
    """The view of a claim."""
    metadata, spec, annotations = claim.metadata, claim.spec, claim.metadata.annotations
    return ClaimView(
        key=join_key(metadata.namespace, metadata.name),
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resourceVersion,
        phase=claim.status.phase,
        storage_class=class_of(claim),
        volume=spec.volumeName,
        access_modes=tuple(spec.accessModes),
        volume_mode=spec.volumeMode or "Filesystem",
        requested=_bytes(spec.resources.requests),
        selector=spec.selector.SerializeToString(deterministic=True) if spec.HasField("selector") else None,
        is_bind_completed=BIND_COMPLETED in annotations,
        is_volume_chosen=BOUND_BY_CONTROLLER in annotations,
        selected_node=annotations.get(SELECTED_NODE, ""),
        provisioner=annotations.get(STORAGE_PROVISIONER) or annotations.get(BETA_STORAGE_PROVISIONER, ""),
        is_deleting=is_being_deleted(claim),
        finalizers=tuple(metadata.finalizers),
    )


def volume_view(volume: persistent_volume_pb2.PersistentVolume) -> VolumeView:
    """The view of a volume."""
    metadata, spec = volume.metadata, volume.spec
    affinity = spec.nodeAffinity
    csi = spec.persistentVolumeSource.csi
    return VolumeView(
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resourceVersion,
        phase=volume.status.phase,
        storage_class=class_of(volume),
        access_modes=tuple(spec.accessModes),
        volume_mode=spec.volumeMode or "Filesystem",
        capacity=_bytes(spec.capacity),
        labels=dict(metadata.labels),
        claim=join_key(spec.claimRef.namespace, spec.claimRef.name) if spec.HasField("claimRef") else "",
        claim_uid=spec.claimRef.uid,
        is_claim_chosen=BOUND_BY_CONTROLLER in metadata.annotations,
        is_provisioned=PROVISIONED_BY in metadata.annotations,
        reclaim_policy=spec.persistentVolumeReclaimPolicy,
        node_affinity=affinity.required.SerializeToString(deterministic=True) if affinity.HasField("required") else b"",
        driver=csi.driver,
        handle=csi.volumeHandle,
        is_deleting=is_being_deleted(volume),
        finalizers=tuple(metadata.finalizers),
    )


def class_view(item: storage_pb2.StorageClass) -> ClassView:
    """The view of a storage class."""
    return ClassView(
        name=item.metadata.name,
        provisioner=item.provisioner,
        waits_for_consumer=item.volumeBindingMode == WAIT_FOR_FIRST_CONSUMER,
        topologies=tuple(
            tuple((entry.key, tuple(entry.values)) for entry in term.matchLabelExpressions)
            for term in item.allowedTopologies
        ),
        is_default=any(item.metadata.annotations.get(key) == "true" for key in DEFAULT_CLASS_ANNOTATIONS),
        created_s=item.metadata.creationTimestamp.seconds,
    )


def default_class(classes: Iterable[ClassView]) -> ClassView | None:
    """The class of claims that name none: of several marked ones the newest, then the first by name."""
    marked = [item for item in classes if item.is_default]
    return min(marked, key=lambda item: (-item.created_s, item.name), default=None)


def satisfies(volume: VolumeView, claim: ClaimView) -> str:
    """Why this volume can't serve the claim that asks for it by name, in Kubernetes' words; empty where it can."""
    if volume.capacity < claim.requested:
        return "requested PV is too small"
    if volume.storage_class != claim.storage_class:
        return "storageClassName does not match"
    if volume.volume_mode != claim.volume_mode:
        return "incompatible volumeMode"
    if not set(claim.access_modes) <= set(volume.access_modes):
        return "incompatible accessMode"
    return ""


def is_candidate(volume: VolumeView, claim: ClaimView) -> bool:
    """Whether the volume is free and fits the claim, nodes aside."""
    return (
        not volume.claim
        and volume.phase == "Available"
        and not volume.is_deleting
        and not satisfies(volume, claim)
        and _is_selected(volume, claim)
    )


def best_first(volumes: Iterable[VolumeView]) -> list[VolumeView]:
    """In the order in which a claim takes them: the smallest first, of equal ones the first by name."""
    return sorted(volumes, key=lambda volume: (volume.capacity, volume.name))


def reserved_for(claim: ClaimView, volumes: Iterable[VolumeView]) -> VolumeView | None:
    """A volume whose claimRef names the claim and that is large enough, of several the smallest."""
    fitting = (
        volume
        for volume in volumes
        if volume.is_for(claim)
        and not volume.is_deleting
        and volume.capacity >= claim.requested
        and volume.volume_mode == claim.volume_mode
        and set(claim.access_modes) <= set(volume.access_modes)
    )
    return next(iter(best_first(fitting)), None)


def _is_selected(volume: VolumeView, claim: ClaimView) -> bool:
    if claim.selector is None:
        return True
    try:
        selector = from_label_selector(meta_pb2.LabelSelector.FromString(claim.selector))
    except SelectorError:
        return False
    # A selector that says nothing asks for nothing.
    return not claim.selector or selector.matches(volume.labels)


def _bytes(amounts: Mapping[str, Any]) -> int:
    return Quantity.parse(amounts["storage"].string).value() if "storage" in amounts else 0
