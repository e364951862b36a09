"""The objects that a pod refers to: which they are, and a cache of them that is kept true.

ConfigMaps and Secrets, and for volumes the claim, the volume that it is bound to, and what the volume itself names: its
driver, its attachment to this node, its secrets. An object is read once when the first pod needs it, and watched from
then on, until no pod refers to it. So a pod start costs one read an object and node, and a change reaches mounted
volumes at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import CSIPersistentVolumeSource, PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, VolumeAttachment
from tiphys_kubelet.pod_spec import all_containers

Referenced = ConfigMap | Secret | PersistentVolumeClaim | PersistentVolume | CSIDriver | VolumeAttachment


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """One object; kinds that have no namespace have an empty one."""

    kind: type[Referenced]
    namespace: str
    name: str

    @property
    def kind_name(self) -> str:
        """Such as ConfigMap."""
        return self.kind.__name__


Objects = Mapping[ObjectKey, Referenced]


def referenced_by(pod: Pod) -> frozenset[ObjectKey]:
    """Everything that the pod's containers, volumes and image pulls name themselves."""
    namespace = pod.metadata.namespace
    names: set[tuple[type[Referenced], str]] = set()
    for ref in all_containers(pod):
        names.update(_by_container(ref.container))
    for volume in pod.spec.volumes:
        names.update(_by_volume(volume))
        if claim_name := claim_name_of(pod, volume):
            names.add((PersistentVolumeClaim, claim_name))
    names.update((Secret, secret.name) for secret in pod.spec.imagePullSecrets)
    drivers = {v.volumeSource.csi.driver for v in pod.spec.volumes if v.volumeSource.HasField("csi")}
    keys = {ObjectKey(kind, namespace, name) for kind, name in names if name}
    return frozenset(keys | {ObjectKey(CSIDriver, "", driver) for driver in drivers if driver})


def referenced_through(pod: Pod, objects: Objects) -> frozenset[ObjectKey]:
    """Everything that the pod refers to, as far as the objects that are known tell."""
    keys = set(referenced_by(pod))
    for key in tuple(keys):
        claim = objects.get(key)
        if isinstance(claim, PersistentVolumeClaim) and claim.spec.volumeName:
            volume_key = ObjectKey(PersistentVolume, "", claim.spec.volumeName)
            keys.add(volume_key)
            volume = objects.get(volume_key)
            if isinstance(volume, PersistentVolume) and volume.spec.persistentVolumeSource.HasField("csi"):
                keys.update(_by_csi(volume.spec.persistentVolumeSource.csi, pod, objects))
    return frozenset(keys)


def _by_csi(source: CSIPersistentVolumeSource, pod: Pod, objects: Objects) -> Iterator[ObjectKey]:
    driver_key = ObjectKey(CSIDriver, "", source.driver)
    yield driver_key
    for name in ("nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"):
        reference = getattr(source, name)
        if reference.name:
            yield ObjectKey(Secret, reference.namespace or pod.metadata.namespace, reference.name)
    if attach_required(objects.get(driver_key)):
        name = attachment_name(source.volumeHandle, source.driver, pod.spec.nodeName)
        yield ObjectKey(VolumeAttachment, "", name)


def claim_name_of(pod: Pod, volume: Volume) -> str:
    """The claim behind a volume: the one that it names, or the one that is made for it; empty for other volumes."""
    source = volume.volumeSource
    if source.HasField("persistentVolumeClaim"):
        return source.persistentVolumeClaim.claimName
    return f"{pod.metadata.name}-{volume.name}" if source.HasField("ephemeral") else ""


def mounts_by_driver(pod: Pod, volume: Volume) -> bool:
    """A driver may have to mount the volume."""
    return volume.volumeSource.HasField("csi") or bool(claim_name_of(pod, volume))


def attach_required(driver: Referenced | None) -> bool:
    """Whether volumes of the driver must be attached first: so they must, unless its CSIDriver says otherwise."""
    if not isinstance(driver, CSIDriver) or not driver.spec.HasField("attachRequired"):
        return True
    return driver.spec.attachRequired


def attachment_name(handle: str, driver: str, node: str) -> str:
    """The name of a volume's VolumeAttachment to a node; an interface between all components."""
    return f"csi-{hashlib.sha256(f'{handle}{driver}{node}'.encode()).hexdigest()}"


def _by_container(container: Container) -> Iterator[tuple[type[Referenced], str]]:
    for source in container.envFrom:
        if source.HasField("configMapRef"):
            yield ConfigMap, source.configMapRef.localObjectReference.name
        if source.HasField("secretRef"):
            yield Secret, source.secretRef.localObjectReference.name
    for variable in container.env:
        if variable.valueFrom.HasField("configMapKeyRef"):
            yield ConfigMap, variable.valueFrom.configMapKeyRef.localObjectReference.name
        if variable.valueFrom.HasField("secretKeyRef"):
            yield Secret, variable.valueFrom.secretKeyRef.localObjectReference.name


def _by_volume(volume: Volume) -> Iterator[tuple[type[Referenced], str]]:
    source = volume.volumeSource
    if source.HasField("configMap"):
        yield ConfigMap, source.configMap.localObjectReference.name
    if source.HasField("secret"):
        yield Secret, source.secret.secretName
    if source.csi.nodePublishSecretRef.name:
        yield Secret, source.csi.nodePublishSecretRef.name
    for projection in source.projected.sources:
        if projection.HasField("configMap"):
            yield ConfigMap, projection.configMap.localObjectReference.name
        if projection.HasField("secret"):
            yield Secret, projection.secret.localObjectReference.name


Fetch = Callable[[ObjectKey], Awaitable[Referenced | None]]
Follow = Callable[[ObjectKey, Callable[[Referenced | None], None]], Coroutine[Any, Any, None]]


class ObjectCache:
    """Reads and follows objects for the pods of this node; `run` must be running.

    `fetch` reads one now; `follow` runs for ever and tells each new state, None when it is gone. `on_change` is told
    the uids of the pods that refer to an object that changed.
    """

    def __init__(self, fetch: Fetch, follow: Follow, on_change: Callable[[str], None]) -> None:
        self._fetch = fetch
        self._follow = follow
        self._on_change = on_change
        self._known: dict[ObjectKey, Referenced | None] = {}
        self._users: dict[ObjectKey, set[str]] = {}
        self._keys: dict[str, frozenset[ObjectKey]] = {}
        self._tasks: dict[ObjectKey, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Owns the watches."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for key in self._known:
                self._start(key)
            await self._stopped.wait()

    async def objects_of(self, pod: Pod) -> Objects:
        """All that the pod refers to and that exists; raises APIError when the API server does not answer."""
        found: dict[ObjectKey, Referenced] = {}
        keys = referenced_by(pod)
        asked: frozenset[ObjectKey] = frozenset()
        # What is found names more: claim, volume, driver, attachment. What was known before stays followed meanwhile.
        while keys - asked:
            self._register(pod.metadata.uid, keys | self._keys.get(pod.metadata.uid, frozenset()))
            found |= await self._read_all(keys - asked)
            asked, keys = asked | keys, referenced_through(pod, found)
        self._register(pod.metadata.uid, keys)
        return {key: value for key, value in found.items() if key in keys}

    async def _read_all(self, keys: frozenset[ObjectKey]) -> dict[ObjectKey, Referenced]:
        missing = [key for key in keys if self._known.get(key) is None]
        async with asyncio.TaskGroup() as group:
            reads = {key: group.create_task(self._read(key)) for key in missing}
        found = {key: self._known.get(key) for key in keys} | {key: task.result() for key, task in reads.items()}
        return {key: value for key, value in found.items() if value is not None}

    def forget(self, uid: str) -> None:
        """The pod is gone; what only it referred to is no longer watched."""
        self._register(uid, frozenset())
        self._keys.pop(uid, None)

    async def _read(self, key: ObjectKey) -> Referenced | None:
        value = await self._fetch(key)
        if key in self._users:
            self._known[key] = value
            # An object that does not exist yet is followed too, so that the pods that wait for it hear of it.
            self._start(key)
        return value

    def _register(self, uid: str, keys: frozenset[ObjectKey]) -> None:
        before = self._keys.get(uid, frozenset())
        self._keys[uid] = keys
        for key in keys - before:
            self._users.setdefault(key, set()).add(uid)
        for key in before - keys:
            users = self._users.get(key, set())
            users.discard(uid)
            if not users:
                self._drop(key)

    def _drop(self, key: ObjectKey) -> None:
        self._users.pop(key, None)
        self._known.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    def _start(self, key: ObjectKey) -> None:
        if self._group is not None and key not in self._tasks:
            name = f"watch {key.kind_name} {key.namespace}/{key.name}"
            following = self._follow(key, lambda value: self._told(key, value))
            self._tasks[key] = self._group.create_task(following, name=name)

    def _told(self, key: ObjectKey, value: Referenced | None) -> None:
        if key not in self._users or self._known.get(key) == value:
            return
        self._known[key] = value
        for uid in sorted(self._users[key]):
            self._on_change(uid)
