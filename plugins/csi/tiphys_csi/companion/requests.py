"""From objects of the API to requests of the contract and back; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tiphys.api.core.v1 import persistent_volume_claim_pb2, persistent_volume_pb2, reference_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_apimachinery.persistent_volumes import PROVISIONED_BY, class_of
from tiphys_apimachinery.quantity import Format, Quantity
from tiphys_csi.companion.driver import ControllerRpc, DriverFacts, Setback
from tiphys_csi.companion.provisioning import VOLUME_FINALIZER, volume_name

Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
PersistentVolume = persistent_volume_pb2.PersistentVolume
_Mode = csi_pb2.VolumeCapability.AccessMode

# Parameters of a class that are meant for the companion and never reach the driver.
# Source: external-provisioner pkg/controller/controller.go, "csi.storage.k8s.io/".
_PREFIX: Final = "csi.storage.k8s.io/"
_FS_TYPE: Final = f"{_PREFIX}fstype"
_SECRETS: Final = (
    "provisioner",
    "controller-publish",
    "node-stage",
    "node-publish",
    "controller-expand",
    "node-expand",
)
DELETION_SECRET_NAME: Final = "volume.kubernetes.io/provisioner-deletion-secret-name"
DELETION_SECRET_NAMESPACE: Final = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
_TEMPLATE = re.compile(r"\$\{([^}]*)\}")


class BadClass(Setback):
    """The storage class says something that can't be; the message is for its author."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a class says: to the driver, and to the companion. secrets are (namespace, name) by their use."""

    driver: Mapping[str, str]
    fs_type: str = ""
    secrets: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def read_parameters(storage_class: storage_pb2.StorageClass, claim: Claim) -> Parameters:
    """The class's parameters for one claim. Raises BadClass."""
    given = dict(storage_class.parameters)
    own = {key: given.pop(key) for key in list(given) if key.startswith(_PREFIX)}
    fs_type = own.pop(_FS_TYPE, "")
    values = {
        "pv.name": volume_name(claim.metadata.uid),
        "pvc.name": claim.metadata.name,
        "pvc.namespace": claim.metadata.namespace,
    }
    values.update({f"pvc.annotations['{key}']": text for key, text in claim.metadata.annotations.items()})
    secrets = {}
    for use in _SECRETS:
        name = own.pop(f"{_PREFIX}{use}-secret-name", "")
        namespace = own.pop(f"{_PREFIX}{use}-secret-namespace", "")
        if bool(name) != bool(namespace):
            raise BadClass(f"parameters of {use} name a secret or its namespace, but not both")
        if name:
            secrets[use] = (_filled(namespace, values), _filled(name, values))
    if own:
        raise BadClass(f"unknown parameter {sorted(own)[0]}")
    return Parameters(given, fs_type, secrets)


def _filled(template: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise BadClass(f"{template!r} names {match[1]!r}, which nobody has")
        return values[match[1]]

    return _TEMPLATE.sub(value, template)


def capabilities_for(
    modes: Sequence[str], volume_mode: str, facts: DriverFacts, *, fs_type: str, mount_flags: Sequence[str]
) -> list[csi_pb2.VolumeCapability]:
    """The ways in which a claim with these access modes uses its volume. Raises BadClass for an unknown one."""
    made = []
    for mode in modes:
        capability = csi_pb2.VolumeCapability()
        if volume_mode == "Block":
            capability.block.SetInParent()
        else:
            capability.mount.fs_type = fs_type
            capability.mount.mount_flags.extend(mount_flags)
        capability.access_mode.mode = _mode(mode, facts)
        made.append(capability)
    return made


def _mode(mode: str, facts: DriverFacts) -> _Mode.Mode.ValueType:
    # Source: csi-lib-utils accessmodes: drivers that tell single from multi writer get the exact mode.
    exact = facts.can(ControllerRpc.SINGLE_NODE_MULTI_WRITER)
    known = {
        "ReadWriteOnce": _Mode.SINGLE_NODE_MULTI_WRITER if exact else _Mode.SINGLE_NODE_WRITER,
        "ReadWriteOncePod": _Mode.SINGLE_NODE_SINGLE_WRITER if exact else _Mode.SINGLE_NODE_WRITER,
        "ReadOnlyMany": _Mode.MULTI_NODE_READER_ONLY,
        "ReadWriteMany": _Mode.MULTI_NODE_MULTI_WRITER,
    }
    if mode not in known:
        raise BadClass(f"access mode {mode!r} is unknown")
    return known[mode]


def create_request(
    claim: Claim, storage_class: storage_pb2.StorageClass, facts: DriverFacts, parameters: Parameters
) -> csi_pb2.CreateVolumeRequest:
    """What makes the claim's volume, secrets and content aside; the same for the same claim, whenever it is made."""
    request = csi_pb2.CreateVolumeRequest(
        name=volume_name(claim.metadata.uid),
        parameters=parameters.driver,
        volume_capabilities=capabilities_for(
            claim.spec.accessModes,
            claim.spec.volumeMode,
            facts,
            fs_type=parameters.fs_type,
            mount_flags=storage_class.mountOptions,
        ),
    )
    resources = claim.spec.resources
    request.capacity_range.required_bytes = size_of(resources.requests)
    if "storage" in resources.limits:
        request.capacity_range.limit_bytes = size_of(resources.limits)
    if facts.has_topology and facts.segments:
        for places in (
            request.accessibility_requirements.requisite,
            request.accessibility_requirements.preferred,
        ):
            places.add().segments.update(dict(facts.segments))
    return request


def size_of(amounts: Mapping[str, object]) -> int:
    """Bytes under storage in a map of quantities, 0 without."""
    return Quantity.parse(amounts["storage"].string).value() if "storage" in amounts else 0  # type: ignore[attr-defined]


def size_text(size_bytes: int) -> str:
    """Bytes as a quantity, in powers of two where that loses nothing."""
    return str(Quantity.of(size_bytes, Format.BINARY))


def make_volume(
    claim: Claim,
    storage_class: storage_pb2.StorageClass,
    *,
    driver_name: str,
    made: csi_pb2.Volume,
    parameters: Parameters,
) -> PersistentVolume:
    """The PersistentVolume for a volume that the driver made for the claim."""
    volume = PersistentVolume()
    metadata, spec = volume.metadata, volume.spec
    metadata.name = volume_name(claim.metadata.uid)
    metadata.annotations[PROVISIONED_BY] = driver_name
    if "provisioner" in parameters.secrets:
        namespace, name = parameters.secrets["provisioner"]
        metadata.annotations[DELETION_SECRET_NAME] = name
        metadata.annotations[DELETION_SECRET_NAMESPACE] = namespace
    metadata.finalizers.append(VOLUME_FINALIZER)
    spec.accessModes.extend(claim.spec.accessModes)
    spec.capacity["storage"].string = size_text(made.capacity_bytes or size_of(claim.spec.resources.requests))
    spec.claimRef.kind, spec.claimRef.apiVersion = "PersistentVolumeClaim", "v1"
    spec.claimRef.namespace, spec.claimRef.name = claim.metadata.namespace, claim.metadata.name
    spec.claimRef.uid = claim.metadata.uid
    spec.persistentVolumeReclaimPolicy = storage_class.reclaimPolicy or "Delete"
    spec.storageClassName = class_of(claim)
    spec.mountOptions.extend(storage_class.mountOptions)
    spec.volumeMode = claim.spec.volumeMode or "Filesystem"
    csi = spec.persistentVolumeSource.csi
    csi.driver, csi.volumeHandle = driver_name, made.volume_id
    if parameters.fs_type:
        csi.fsType = parameters.fs_type
    csi.volumeAttributes.update(made.volume_context)
    for use, target in (
        ("controller-publish", csi.controllerPublishSecretRef),
        ("node-stage", csi.nodeStageSecretRef),
        ("node-publish", csi.nodePublishSecretRef),
        ("controller-expand", csi.controllerExpandSecretRef),
        ("node-expand", csi.nodeExpandSecretRef),
    ):
        if use in parameters.secrets:
            target.namespace, target.name = parameters.secrets[use]
    for place in made.accessible_topology:
        term = spec.nodeAffinity.required.nodeSelectorTerms.add()
        for key, value in sorted(place.segments.items()):
            term.matchExpressions.add(key=key, operator="In", values=[value])
    return volume


def capability_of(volume: PersistentVolume, facts: DriverFacts) -> csi_pb2.VolumeCapability:
    """The widest way in which a volume is used, for calls that take one."""
    spec = volume.spec
    found = capabilities_for(
        list(spec.accessModes)[:1] or ["ReadWriteOnce"],
        spec.volumeMode,
        facts,
        fs_type=spec.persistentVolumeSource.csi.fsType,
        mount_flags=spec.mountOptions,
    )
    if "ReadWriteMany" in spec.accessModes:
        found[0].access_mode.mode = _Mode.MULTI_NODE_MULTI_WRITER
    return found[0]


def secret_of(reference: reference_pb2.SecretReference) -> tuple[str, str] | None:
    """Namespace and name in a reference, None for none."""
    return (reference.namespace, reference.name) if reference.name else None
