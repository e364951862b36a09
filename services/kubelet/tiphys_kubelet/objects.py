"""The ConfigMaps and Secrets that a pod refers to: which they are, and a cache of them that is kept true.

An object is read once when the first pod needs it, and watched from then on, until no pod refers to it. So a pod start
costs one read an object and node, and a change reaches mounted volumes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys_kubelet.pod_spec import all_containers

Referenced = ConfigMap | Secret


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """One ConfigMap or Secret."""

    kind: type[Referenced]
    namespace: str
    name: str

    @property
    def kind_name(self) -> str:
        """ConfigMap or Secret."""
        return self.kind.__name__


Objects = Mapping[ObjectKey, Referenced]


def referenced_by(pod: Pod) -> frozenset[ObjectKey]:
    """Everything that the pod's containers, volumes and image pulls refer to."""
    namespace = pod.metadata.namespace
    names: set[tuple[type[Referenced], str]] = set()
    for ref in all_containers(pod):
        names.update(_by_container(ref.container))
    for volume in pod.spec.volumes:
        names.update(_by_volume(volume))
    names.update((Secret, secret.name) for secret in pod.spec.imagePullSecrets)
    return frozenset(ObjectKey(kind, namespace, name) for kind, name in names if name)


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
        keys = referenced_by(pod)
        self._register(pod.metadata.uid, keys)
        missing = [key for key in keys if self._known.get(key) is None]
        async with asyncio.TaskGroup() as group:
            reads = {key: group.create_task(self._read(key)) for key in missing}
        found = {key: self._known.get(key) for key in keys} | {key: task.result() for key, task in reads.items()}
        return {key: value for key, value in found.items() if value is not None}

    def known_objects_of(self, pod: Pod) -> Objects:
        """The same without asking the API server."""
        found = {key: self._known.get(key) for key in referenced_by(pod)}
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
