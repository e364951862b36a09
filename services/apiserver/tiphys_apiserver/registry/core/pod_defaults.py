"""Defaults of pods that depend on more than one field; the schema's own come before these."""

from __future__ import annotations

from typing import Any

from tiphys_apiserver.registry.core.pod_resize import default_policies

ALWAYS = "Always"
IF_NOT_PRESENT = "IfNotPresent"
_FILE_MODE = 0o644
_TOKEN_LIFETIME_S = 3600
# Sources of a volume whose files get a mode.
_WITH_MODE = ("secret", "configMap", "projected", "downwardAPI")


def default_pod_spec(spec: Any) -> None:
    """Fill what holds for pods and for templates of pods alike."""
    spec.securityContext.SetInParent()
    # Two names for one field; the new one wins.
    if spec.serviceAccountName:
        spec.serviceAccount = spec.serviceAccountName
    elif spec.serviceAccount:
        spec.serviceAccountName = spec.serviceAccount
    for container in (*spec.initContainers, *spec.containers):
        default_container(container)
    for ephemeral in spec.ephemeralContainers:
        default_container(ephemeral.ephemeralContainerCommon)
    for volume in spec.volumes:
        default_volume(volume)


def default_pod(pod: Any) -> None:
    """Fill what holds for pods only: requests from limits, host ports of the host's network."""
    default_pod_spec(pod.spec)
    spec = pod.spec
    if not spec.HasField("enableServiceLinks"):
        spec.enableServiceLinks = True
    for container in (*spec.initContainers, *spec.containers):
        for name, limit in container.resources.limits.items():
            if name not in container.resources.requests:
                container.resources.requests[name].CopyFrom(limit)
        if spec.hostNetwork:
            for port in container.ports:
                if not port.hostPort:
                    port.hostPort = port.containerPort
    default_policies(spec)


def default_container(container: Any) -> None:
    """Pull always what has no tag or the tag latest; write always the structs that JSON shows empty."""
    if not container.imagePullPolicy and container.image:
        container.imagePullPolicy = pull_policy(container.image)
    container.resources.SetInParent()


def pull_policy(image: str) -> str:
    """Always for the tag latest, also where neither tag nor digest is given; else IfNotPresent."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return ALWAYS if tag == "latest" or not (tag or digest) else IF_NOT_PRESENT


def default_volume(volume: Any) -> None:
    """A volume without a source is an emptyDir; files get mode 0644."""
    source = volume.volumeSource
    if not source.ListFields():
        source.emptyDir.SetInParent()
    for name in _WITH_MODE:
        if source.HasField(name) and not getattr(source, name).HasField("defaultMode"):
            getattr(source, name).defaultMode = _FILE_MODE
    if source.HasField("hostPath") and not source.hostPath.HasField("type"):
        source.hostPath.type = ""
    for projection in source.projected.sources if source.HasField("projected") else ():
        if projection.HasField("serviceAccountToken"):
            token = projection.serviceAccountToken
            if not token.HasField("expirationSeconds"):
                token.expirationSeconds = _TOKEN_LIFETIME_S
    if source.HasField("ephemeral"):
        claim = source.ephemeral.volumeClaimTemplate.spec
        if not claim.HasField("volumeMode"):
            claim.volumeMode = "Filesystem"
