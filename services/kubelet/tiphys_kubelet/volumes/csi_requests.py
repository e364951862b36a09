"""What a driver is asked: the requests made of the pod, its volume and what belongs to it. Pure.

Source: CSI 1.12, and for the keys of the volume context and the policies of fsGroup the Kubernetes documentation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.storage.v1.storage_pb2 import CSIDriver
from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_kubelet.objects import ObjectKey, attach_required
from tiphys_kubelet.volumes.csi_disk import VolumeData, publish_mount, staging_mount
from tiphys_kubelet.volumes.interface import VolumeError, VolumeRequest

Mode = csi_pb2.VolumeCapability.AccessMode
_MODES = {
    "ReadWriteOnce": Mode.SINGLE_NODE_WRITER,
    "ReadOnlyMany": Mode.MULTI_NODE_READER_ONLY,
    "ReadWriteMany": Mode.MULTI_NODE_MULTI_WRITER,
    "ReadWriteOncePod": Mode.SINGLE_NODE_WRITER,
}
# For drivers that tell one writer from several on one node.
_FINE_MODES = _MODES | {
    "ReadWriteOnce": Mode.SINGLE_NODE_MULTI_WRITER,
    "ReadWriteOncePod": Mode.SINGLE_NODE_SINGLE_WRITER,
}


@dataclass(frozen=True, slots=True)
class DriverAbilities:
    """What the driver's node service can do, as far as requests depend on it."""

    fine_modes: bool = False
    mount_group: bool = False


@dataclass(frozen=True, slots=True)
class CsiVolume:
    """One volume of a pod, seen as CSI sees it. `spec` is its CSIDriver, None if there is none."""

    request: VolumeRequest
    spec: CSIDriver | None

    @property
    def driver(self) -> str:
        """The driver's name."""
        return self.request.volume.volumeSource.csi.driver

    @property
    def is_ephemeral(self) -> bool:
        """It lives and dies with the pod."""
        return self.request.persistent is None

    @property
    def handle(self) -> str:
        """The id by which the driver knows it."""
        if self.request.persistent is not None:
            return self.request.persistent.spec.persistentVolumeSource.csi.volumeHandle
        text = f"{self.request.pod.metadata.uid}{self.request.volume.name}"
        return f"csi-{hashlib.sha256(text.encode()).hexdigest()}"

    @property
    def needs_attachment(self) -> bool:
        """It must be attached to the node before anything else."""
        return not self.is_ephemeral and attach_required(self.spec)

    @property
    def is_device(self) -> bool:
        """The pod gets a device, not a file system."""
        return self.request.persistent is not None and self.request.persistent.spec.volumeMode == "Block"

    @property
    def staging_step(self) -> str:
        """What Kubernetes calls staging it."""
        return "MapVolume.SetUpDevice" if self.is_device else "MountVolume.MountDevice"

    @property
    def publishing_step(self) -> str:
        """What Kubernetes calls publishing it."""
        return "MapVolume.MapPodDevice" if self.is_device else "MountVolume.SetUp"

    @property
    def read_only(self) -> bool:
        """The pod may not write to it."""
        return self.request.read_only or self.request.volume.volumeSource.csi.readOnly

    @property
    def fs_type(self) -> str:
        """The file system that is asked for; empty leaves it to the driver."""
        return self.request.volume.volumeSource.csi.fsType

    def note(self, attachment_id: str) -> VolumeData:
        """What is written down of it."""
        return VolumeData(
            driver=self.driver,
            handle=self.handle,
            spec_name=self.request.volume.name,
            node=self.request.pod.spec.nodeName,
            attachment_id=attachment_id,
            mode="Ephemeral" if self.is_ephemeral else "Persistent",
        )

    def check_mode(self) -> None:
        """Raises VolumeError where the driver does not offer volumes of this kind."""
        wanted = "Ephemeral" if self.is_ephemeral else "Persistent"
        offered = list(self.spec.spec.volumeLifecycleModes) if self.spec is not None else []
        if wanted not in (offered or ["Persistent"]):
            told = ", ".join(f'"{mode}"' for mode in offered or ["Persistent"])
            raise VolumeError(f'volume mode "{wanted}" not supported by driver {self.driver} (only supports [{told}])')

    def applies_group(self) -> bool:
        """Whether the fsGroup of the pod, if it has one, is given to the volume."""
        policy = self.spec.spec.fsGroupPolicy if self.spec is not None else ""
        if self.read_only or self.is_device or policy == "None":
            return False
        if policy == "File":
            return True
        if not self.fs_type:
            return False
        if self.request.persistent is None:
            return True
        modes = self.request.persistent.spec.accessModes
        return "ReadWriteOnce" in modes or "ReadWriteOncePod" in modes


def capability(volume: CsiVolume, abilities: DriverAbilities) -> csi_pb2.VolumeCapability:
    """How the volume is to be used."""
    persistent = volume.request.persistent
    modes = list(persistent.spec.accessModes) if persistent is not None else []
    known = _FINE_MODES if abilities.fine_modes else _MODES
    wanted = csi_pb2.VolumeCapability()
    wanted.access_mode.mode = known.get(modes[0] if modes else "ReadWriteOnce", Mode.UNKNOWN)
    if volume.is_device:
        wanted.block.SetInParent()
        return wanted
    wanted.mount.fs_type = volume.fs_type
    if persistent is not None:
        wanted.mount.mount_flags.extend(persistent.spec.mountOptions)
    group = volume.request.fs_group
    if group is not None and abilities.mount_group and volume.applies_group():
        wanted.mount.volume_mount_group = str(group)
    return wanted


def stage_request(
    volume: CsiVolume, directory: Path, context: Mapping[str, str], abilities: DriverAbilities
) -> csi_pb2.NodeStageVolumeRequest:
    """NodeStageVolume; `context` is what the attachment told. Raises VolumeError if a secret is missing."""
    return csi_pb2.NodeStageVolumeRequest(
        volume_id=volume.handle,
        publish_context=context,
        staging_target_path=str(staging_mount(directory)),
        volume_capability=capability(volume, abilities),
        secrets=secrets(volume, "nodeStageSecretRef"),
        volume_context=volume.request.volume.volumeSource.csi.volumeAttributes,
    )


def publish_request(
    volume: CsiVolume, staging: Path | None, context: Mapping[str, str], abilities: DriverAbilities
) -> csi_pb2.NodePublishVolumeRequest:
    """NodePublishVolume; `staging` is None where the driver does not stage. Raises VolumeError."""
    return csi_pb2.NodePublishVolumeRequest(
        volume_id=volume.handle,
        publish_context=context,
        staging_target_path=str(staging_mount(staging)) if staging is not None else "",
        target_path=str(publish_mount(volume.request.path)),
        volume_capability=capability(volume, abilities),
        readonly=volume.read_only,
        secrets=secrets(volume, "nodePublishSecretRef"),
        volume_context=dict(volume.request.volume.volumeSource.csi.volumeAttributes) | pod_info(volume),
    )


def pod_info(volume: CsiVolume) -> dict[str, str]:
    """What the driver wants to know of the pod."""
    if volume.spec is None or not volume.spec.spec.podInfoOnMount:
        return {}
    pod = volume.request.pod
    return {
        "csi.storage.k8s.io/pod.name": pod.metadata.name,
        "csi.storage.k8s.io/pod.namespace": pod.metadata.namespace,
        "csi.storage.k8s.io/pod.uid": pod.metadata.uid,
        "csi.storage.k8s.io/serviceAccount.name": pod.spec.serviceAccountName,
        "csi.storage.k8s.io/ephemeral": "true" if volume.is_ephemeral else "false",
    }


def secrets(volume: CsiVolume, reference_name: str) -> dict[str, str]:
    """The content of a secret that the volume names for a call. Raises VolumeError if it is missing."""
    request = volume.request
    if request.persistent is not None:
        reference = getattr(request.persistent.spec.persistentVolumeSource.csi, reference_name)
        namespace, name = reference.namespace or request.pod.metadata.namespace, reference.name
    elif reference_name == "nodePublishSecretRef":
        namespace, name = request.pod.metadata.namespace, request.volume.volumeSource.csi.nodePublishSecretRef.name
    else:
        return {}
    if not name:
        return {}
    secret = request.objects.get(ObjectKey(Secret, namespace, name))
    if not isinstance(secret, Secret):
        raise VolumeError(f'fetching {reference_name} {namespace}/{name} failed: secrets "{name}" not found')
    return {key: value.decode(errors="replace") for key, value in secret.data.items()}
