"""What a Deployment does to its ReplicaSets: makes, sizes and deletes them, and tells of it by events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.api.apps.v1 import apps_pb2
from tiphys_apimachinery.errors import AlreadyExists, NotFound
from tiphys_apimachinery.meta import is_controlled_by
from tiphys_client.client import Client
from tiphys_controller_manager.controllers.deployment.revision import (
    annotate,
    annotate_sizes,
    fingerprint,
    make_new,
    next_revision,
)
from tiphys_controller_manager.controllers.deployment.rolling import Limits
from tiphys_controller_manager.expectations import Expectations
from tiphys_controller_manager.frame import EventSink


class NameTaken(Exception):
    """Another ReplicaSet has the name that the template's hash gives."""


class ReplicaSetControl:
    """Writes ReplicaSets of one Deployment at a time; objects passed in take over what the server answered."""

    def __init__(self, client: Client, events: EventSink, expectations: Expectations) -> None:
        self._client = client
        self._events = events
        self._expectations = expectations

    async def make(
        self,
        key: str,
        deployment: apps_pb2.Deployment,
        olds: Sequence[apps_pb2.ReplicaSet],
        *,
        replicas: int,
        limits: Limits,
    ) -> apps_pb2.ReplicaSet:
        """Make the ReplicaSet of the present template. Raises NameTaken, and errors of the API."""
        made = make_new(deployment, revision=next_revision(olds), replicas=replicas, limits=limits)
        try:
            stored = await self._client.create(made)
        except AlreadyExists:
            return await self._take_existing(key, deployment, made)
        self._expectations.wrote(key, stored)
        if replicas:
            self._scaled(deployment, stored.metadata.name, 0, replicas)
        return stored

    async def _take_existing(
        self, key: str, deployment: apps_pb2.Deployment, made: apps_pb2.ReplicaSet
    ) -> apps_pb2.ReplicaSet:
        """The ReplicaSet of that name, if it is our own and only our view was behind."""
        metadata = made.metadata
        found = await self._client.get(apps_pb2.ReplicaSet, metadata.name, metadata.namespace)
        if is_controlled_by(found, deployment) and fingerprint(found.spec.template) == fingerprint(made.spec.template):
            self._expectations.wrote(key, found)
            return found
        raise NameTaken(f"replica set {metadata.namespace}/{metadata.name} has another template or owner")

    async def refresh(
        self, key: str, deployment: apps_pb2.Deployment, new: apps_pb2.ReplicaSet, olds: Sequence[apps_pb2.ReplicaSet]
    ) -> None:
        """Bring the new ReplicaSet's annotations and minReadySeconds up to date."""
        changed = annotate(new, deployment, next_revision(olds))
        if new.spec.minReadySeconds != deployment.spec.minReadySeconds:
            new.spec.minReadySeconds = deployment.spec.minReadySeconds
            changed = True
        if changed:
            await self._update(key, new)

    async def resize(
        self,
        key: str,
        deployment: apps_pb2.Deployment,
        sets: Sequence[apps_pb2.ReplicaSet],
        sizes: Mapping[str, int],
        *,
        limits: Limits,
    ) -> bool:
        """Give ReplicaSets their sizes, by name; whether any size changed."""
        resized = False
        for item in sets:
            size = sizes.get(item.metadata.name)
            if size is None:
                continue
            before = item.spec.replicas
            noted = annotate_sizes(item.metadata.annotations, limits)
            if size == before and not noted:
                continue
            item.spec.replicas = size
            await self._update(key, item)
            if size != before:
                resized = True
                self._scaled(deployment, item.metadata.name, before, size)
        return resized

    async def delete(self, key: str, item: apps_pb2.ReplicaSet) -> None:
        """Delete this very ReplicaSet; one that is gone is fine."""
        metadata = item.metadata
        self._expectations.deleting(key, [item])
        try:
            await self._client.delete(
                apps_pb2.ReplicaSet, metadata.name, metadata.namespace, preconditions_uid=metadata.uid
            )
        except NotFound:
            return
        except Exception:
            self._expectations.not_changed(key, item)
            raise

    async def _update(self, key: str, item: apps_pb2.ReplicaSet) -> None:
        stored = await self._client.update(item)
        self._expectations.wrote(key, stored)
        item.CopyFrom(stored)

    def _scaled(self, deployment: Any, name: str, before: int, after: int) -> None:
        direction = "up" if after > before else "down"
        message = f"Scaled {direction} replica set {name} from {before} to {after}"
        self._events.event(deployment, "Normal", "ScalingReplicaSet", message)
