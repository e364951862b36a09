"""From a pod's claim to the volume behind it. Pure.

Source: the checks that Kubernetes makes before it mounts a claim, and its words for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys_kubelet.objects import ObjectKey, Objects, claim_name_of
from tiphys_kubelet.volumes.interface import VolumeError, VolumeMapError, VolumeWaiting


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is to be mounted. `volume` has the name and the source of the persistent volume where there is one."""

    volume: Volume
    persistent: PersistentVolume | None = None
    claim: PersistentVolumeClaim | None = None
    read_only: bool = False


def resolve(pod: Pod, volume: Volume, objects: Objects) -> Resolved:
    """The volume itself, or what its claim is bound to. Raises VolumeError."""
    name = claim_name_of(pod, volume)
    if not name:
        return Resolved(volume)
    claim = _claim(pod, volume, name, objects)
    persistent = _bound_volume(claim, objects)
    is_device = persistent.spec.volumeMode == "Block"
    _check_use(pod, volume.name, is_device=is_device)
    read_only = volume.volumeSource.persistentVolumeClaim.readOnly
    resolved = Resolved(_as_volume(persistent), persistent, claim, read_only=read_only)
    if is_device and not resolved.volume.volumeSource.HasField("csi"):
        raise VolumeMapError(f"volume {persistent.metadata.name} has volumeMode Block, which only CSI offers here")
    return resolved


def _claim(pod: Pod, volume: Volume, name: str, objects: Objects) -> PersistentVolumeClaim:
    where = f"error processing PVC {pod.metadata.namespace}/{name}"
    claim = objects.get(ObjectKey(PersistentVolumeClaim, pod.metadata.namespace, name))
    if not isinstance(claim, PersistentVolumeClaim):
        raise VolumeError(f'{where}: failed to fetch PVC from API server: persistentvolumeclaims "{name}" not found')
    if volume.volumeSource.HasField("ephemeral") and not _is_owned(claim, pod):
        raise VolumeError(f"{where}: PVC {name} was not created for pod {pod.metadata.name} (pod is not owner)")
    # One in use stays until the pod is gone; a pod that comes now must not hold it up.
    if claim.metadata.HasField("deletionTimestamp") and "kubernetes.io/pvc-protection" not in claim.metadata.finalizers:
        raise VolumeError(f"{where}: PVC is being deleted")
    if claim.status.phase == "Lost":
        raise VolumeError(f"{where}: PVC is lost: its volume {claim.spec.volumeName} is gone")
    if claim.status.phase != "Bound" or not claim.spec.volumeName:
        # A pod may be here before the claim's status is: its volume was chosen, and the rest follows.
        raise VolumeWaiting(f"{where}: PVC is not bound")
    return claim


def _is_owned(claim: PersistentVolumeClaim, pod: Pod) -> bool:
    return any(owner.controller and owner.uid == pod.metadata.uid for owner in claim.metadata.ownerReferences)


def _bound_volume(claim: PersistentVolumeClaim, objects: Objects) -> PersistentVolume:
    name = claim.spec.volumeName
    where = f"error processing PVC {claim.metadata.namespace}/{claim.metadata.name}"
    volume = objects.get(ObjectKey(PersistentVolume, "", name))
    if not isinstance(volume, PersistentVolume):
        raise VolumeError(f'{where}: failed to fetch PV {name} from API server: persistentvolumes "{name}" not found')
    if not volume.spec.HasField("claimRef"):
        raise VolumeError(f"{where}: found PV object {name} with nil claimRef indicating it is not yet bound")
    if volume.spec.claimRef.uid != claim.metadata.uid:
        raise VolumeError(
            f"{where}: found PV object {name} with claimRef.UID {volume.spec.claimRef.uid}, "
            f"but the claim has UID {claim.metadata.uid}"
        )
    return volume


def _as_volume(persistent: PersistentVolume) -> Volume:
    """The persistent volume with its source as pods name it, so that one plugin serves both."""
    volume = Volume(name=persistent.metadata.name)
    source, target = persistent.spec.persistentVolumeSource, volume.volumeSource
    if source.HasField("csi"):
        target.csi.driver = source.csi.driver
        target.csi.volumeAttributes.update(source.csi.volumeAttributes)
        target.csi.readOnly = source.csi.readOnly
        if source.csi.fsType:
            target.csi.fsType = source.csi.fsType
    elif source.HasField("hostPath"):
        target.hostPath.CopyFrom(source.hostPath)
    elif source.HasField("local"):
        target.hostPath.path, target.hostPath.type = source.local.path, "Directory"
    else:
        kinds = ", ".join(field.name for field, _ in source.ListFields()) or "none"
        raise VolumeError(f"no volume plugin matched: source {kinds} is not supported on this node")
    return volume


def _check_use(pod: Pod, name: str, *, is_device: bool) -> None:
    """Raises VolumeError where a container asks for a file system and the volume is a device, or the reverse."""
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        as_device = any(device.name == name for device in container.volumeDevices)
        as_mount = any(mount.name == name for mount in container.volumeMounts)
        if as_mount and is_device:
            raise VolumeMapError(f"volume {name} has volumeMode Block, but is specified in volumeMounts")
        if as_device and not is_device:
            raise VolumeError(f"volume {name} has volumeMode Filesystem, but is specified in volumeDevices")
