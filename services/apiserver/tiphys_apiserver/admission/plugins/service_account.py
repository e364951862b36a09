"""Gives every pod its service account, the account's token and its pull secrets."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from tiphys.api.core.v1.service_account_pb2 import ServiceAccount as ServiceAccountMessage
from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.names import random_suffix
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.clock import Clock

DEFAULT_NAME = "default"
TOKEN_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
ROOT_CA_CONFIG_MAP = "kube-root-ca.crt"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
# One hour and seven seconds: the odd number tells tokens that nobody asked for from others.
# Source: Kubernetes pkg/serviceaccount, WarnOnlyBoundTokenExpiration.
TOKEN_LIFETIME_S = 3607
_DEFAULT_MODE = 0o644
# A namespace's default account is made by a controller just after the namespace; wait this long for it.
_PATIENCE_S = 1.5
_POLL_S = 0.1


class ServiceAccount:
    """Fills serviceAccountName, mounts the API token where it is wanted, copies imagePullSecrets."""

    name = "ServiceAccount"

    def __init__(self, objects: ObjectAccess, clock: Clock, rng: Random) -> None:
        self._objects = objects
        self._clock = clock
        self._rng = rng

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New pods."""
        return (
            attributes.operation is Operation.CREATE
            and attributes.resource.plural == "pods"
            and not attributes.resource.group
            and not attributes.subresource
        )

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden for an account that does not exist."""
        pod: Any = attributes.object
        if MIRROR_ANNOTATION in pod.metadata.annotations:
            if pod.spec.serviceAccountName:
                raise refuse(attributes, "a mirror pod may not reference service accounts")
            return
        # serviceAccount is the old name of the same field; the new one wins.
        name = pod.spec.serviceAccountName or pod.spec.serviceAccount or DEFAULT_NAME
        pod.spec.serviceAccountName = name
        pod.spec.serviceAccount = name
        account = await self._account(attributes, name)
        if wants_token(pod, account):
            mount_token(pod, f"{VOLUME_PREFIX}{random_suffix(self._rng)}")
        if not pod.spec.imagePullSecrets:
            pod.spec.imagePullSecrets.MergeFrom(account.imagePullSecrets)

    async def _account(self, attributes: AdmissionAttributes, name: str) -> Any:
        namespace = attributes.namespace
        patience_s = _PATIENCE_S if name == DEFAULT_NAME else 0.0
        give_up = self._clock.monotonic() + patience_s
        while True:
            try:
                return await self._objects.get(ServiceAccountMessage, name, namespace)
            except NotFound:
                if self._clock.monotonic() >= give_up:
                    why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
                    raise refuse(attributes, why) from None
            await self._clock.sleep(_POLL_S)


def wants_token(pod: Any, account: Any) -> bool:
    """Whether the pod's containers get the token: the pod's word, then the account's, then yes."""
    if pod.spec.HasField("automountServiceAccountToken"):
        return bool(pod.spec.automountServiceAccountToken)
    if account.HasField("automountServiceAccountToken"):
        return bool(account.automountServiceAccountToken)
    return True


def mount_token(pod: Any, volume_name: str) -> None:
    """Mount the token into each container that has nothing at its path, by one volume of the pod."""
    existing = next((volume.name for volume in pod.spec.volumes if volume.name.startswith(VOLUME_PREFIX)), "")
    mounted = False
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        if any(mount.mountPath == TOKEN_MOUNT_PATH for mount in container.volumeMounts):
            continue
        container.volumeMounts.add(name=existing or volume_name, readOnly=True, mountPath=TOKEN_MOUNT_PATH)
        mounted = True
    if mounted and not existing:
        volume = pod.spec.volumes.add()
        volume.CopyFrom(_token_volume())
        volume.name = volume_name


@cache
def _token_volume() -> Any:
    """The volume without its name, made once; read only."""
    volume = Volume()
    projected = volume.volumeSource.projected
    projected.defaultMode = _DEFAULT_MODE
    token = projected.sources.add().serviceAccountToken
    token.expirationSeconds = TOKEN_LIFETIME_S
    token.path = "token"
    authority = projected.sources.add().configMap
    authority.localObjectReference.name = ROOT_CA_CONFIG_MAP
    authority.items.add(key="ca.crt", path="ca.crt")
    namespace = projected.sources.add().downwardAPI.items.add(path="namespace")
    namespace.fieldRef.apiVersion = "v1"
    namespace.fieldRef.fieldPath = "metadata.namespace"
    return volume
