"""Which secrets, config maps, claims and accounts a node may know of: those its pods name. Values in, values out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

# (kind as a lower-case plural, namespace, name)
Reference = tuple[str, str, str]


def references_of(pod: Any) -> Iterator[Reference]:
    """Everything a kubelet must read to run the pod, save what lies behind its claims.

    Mirror pods name nothing: whoever can make one on a node must not read secrets by it.
    """
    if "kubernetes.io/config.mirror" in pod.metadata.annotations:
        return
    namespace = pod.metadata.namespace
    spec = pod.spec
    if spec.serviceAccountName:
        yield ("serviceaccounts", namespace, spec.serviceAccountName)
    for secret in spec.imagePullSecrets:
        yield ("secrets", namespace, secret.name)
    for container in (*spec.initContainers, *spec.containers):
        yield from _of_environment(namespace, container)
    for ephemeral in spec.ephemeralContainers:
        yield from _of_environment(namespace, ephemeral.ephemeralContainerCommon)
    for volume in spec.volumes:
        yield from _of_volume(pod, volume)
    for status in pod.status.resourceClaimStatuses:
        if status.resourceClaimName:
            yield ("resourceclaims", namespace, status.resourceClaimName)
    for claim in spec.resourceClaims:
        if claim.resourceClaimName:
            yield ("resourceclaims", namespace, claim.resourceClaimName)


def _of_environment(namespace: str, container: Any) -> Iterator[Reference]:
    for source in container.envFrom:
        if source.HasField("secretRef"):
            yield ("secrets", namespace, source.secretRef.localObjectReference.name)
        if source.HasField("configMapRef"):
            yield ("configmaps", namespace, source.configMapRef.localObjectReference.name)
    for variable in container.env:
        if variable.valueFrom.HasField("secretKeyRef"):
            yield ("secrets", namespace, variable.valueFrom.secretKeyRef.localObjectReference.name)
        if variable.valueFrom.HasField("configMapKeyRef"):
            yield ("configmaps", namespace, variable.valueFrom.configMapKeyRef.localObjectReference.name)


# Volume sources with a reference to a secret in the pod's namespace: field of the source, field inside it.
_SECRET_FIELDS = (
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
)


def _of_volume(pod: Any, volume: Any) -> Iterator[Reference]:
    namespace = pod.metadata.namespace
    source = volume.volumeSource
    if source.HasField("secret"):
        yield ("secrets", namespace, source.secret.secretName)
    if source.HasField("configMap"):
        yield ("configmaps", namespace, source.configMap.localObjectReference.name)
    if source.HasField("persistentVolumeClaim"):
        yield ("persistentvolumeclaims", namespace, source.persistentVolumeClaim.claimName)
    if source.HasField("ephemeral"):
        yield ("persistentvolumeclaims", namespace, f"{pod.metadata.name}-{volume.name}")
    if source.HasField("azureFile"):
        yield ("secrets", namespace, source.azureFile.secretName)
    for name, inner in _SECRET_FIELDS:
        if source.HasField(name) and getattr(source, name).HasField(inner):
            yield ("secrets", namespace, getattr(getattr(source, name), inner).name)
    for projection in source.projected.sources:
        if projection.HasField("secret"):
            yield ("secrets", namespace, projection.secret.localObjectReference.name)
        if projection.HasField("configMap"):
            yield ("configmaps", namespace, projection.configMap.localObjectReference.name)


def secrets_of_volume(volume: Any) -> Iterator[Reference]:
    """The secrets a node needs to attach and mount a PersistentVolume."""
    source = volume.spec.persistentVolumeSource
    for driver, names in (
        ("csi", ("nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef")),
        ("cephfs", ("secretRef",)),
        ("flexVolume", ("secretRef",)),
        ("rbd", ("secretRef",)),
        ("iscsi", ("secretRef",)),
    ):
        if not source.HasField(driver):
            continue
        for name in names:
            if getattr(source, driver).HasField(name):
                reference = getattr(getattr(source, driver), name)
                yield ("secrets", reference.namespace or volume.spec.claimRef.namespace, reference.name)


def attachment_name(volume: Any, node: str) -> str:
    """The name that the attachment of a CSI volume to a node has, by a rule that all components keep to."""
    csi = volume.spec.persistentVolumeSource.csi
    return f"csi-{hashlib.sha256(f'{csi.volumeHandle}{csi.driver}{node}'.encode()).hexdigest()}"
