"""What placing looks at beside nodes, pods and storage: labels of namespaces, and who a pod belongs to."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from tiphys.api.apps.v1.apps_pb2 import ReplicaSet, StatefulSet
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.replication_controller_pb2 import ReplicationController
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.labels import Selector, SelectorError, from_label_selector
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.clock import Clock
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo

_MOST_KEPT = 4096


class Surroundings:
    """Informers that the caller runs, and what they say. Owned by the scheduler's loop."""

    def __init__(self, client: Client, clock: Clock, rng: random.Random | None = None) -> None:
        self._namespaces: Informer[Namespace, object] = Informer(client, Namespace, clock=clock, rng=rng)
        self._services: Informer[Service, object] = Informer(client, Service, clock=clock, rng=rng)
        self._owners: dict[str, Informer[Any, object]] = {
            "ReplicationController": Informer(client, ReplicationController, clock=clock, rng=rng),
            "ReplicaSet": Informer(client, ReplicaSet, clock=clock, rng=rng),
            "StatefulSet": Informer(client, StatefulSet, clock=clock, rng=rng),
        }
        # Selectors of services by namespace and name, and of owners by kind, namespace and name.
        self._of_services: dict[str, dict[str, dict[str, str]]] = {}
        self._of_owners: dict[tuple[str, str, str], Selector] = {}
        # By what of a pod decides; made anew when a selector changes.
        self._found: dict[object, Selector] = {}
        _follow(self._services, self._note_service)
        for kind, informer in self._owners.items():
            _follow(informer, partial(self._note_owner, kind))

    def all(self) -> tuple[Informer[Any, Any], ...]:
        """Every informer."""
        return (self._namespaces, self._services, *self._owners.values())

    def follow(self, columns: Columns, moved: Callable[[frozenset[Event]], None]) -> None:
        """Has labels of namespaces brought to the columns, and the queue told."""

        def note(item: Namespace, there: bool) -> None:
            if columns.set_namespace(item.metadata.name, dict(item.metadata.labels) if there else None):
                moved(frozenset({Event.NAMESPACE}))

        _follow(self._namespaces, note)

    def selector_of(self, pod: PodInfo) -> Selector:
        """The pods of the services and of the owner of a pod; everything where it has none.

        Source: kube-scheduler pkg/scheduler/framework/plugins/helper/spread.go.
        """
        key = (pod.needs.identity, pod.needs.owner)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _MOST_KEPT:
                self._found.clear()
            found = self._found[key] = self._select(pod)
        return found

    def _select(self, pod: PodInfo) -> Selector:
        labels, merged = pod.needs.identity.label_map, dict[str, str]()
        for selector in self._of_services.get(pod.namespace, {}).values():
            if selector and all(labels.get(k) == v for k, v in selector.items()):
                merged |= selector
        kind, name = pod.needs.owner
        of_owner = self._of_owners.get((kind, pod.namespace, name), Selector.everything())
        return Selector((*Selector.from_set(merged).requirements, *of_owner.requirements))

    def _note_service(self, item: Service, there: bool) -> None:
        in_namespace = self._of_services.setdefault(item.metadata.namespace, {})
        old = in_namespace.pop(item.metadata.name, None)
        if there and item.spec.selector:
            in_namespace[item.metadata.name] = dict(item.spec.selector)
        if old != in_namespace.get(item.metadata.name):
            self._found.clear()

    def _note_owner(self, kind: str, item: Any, there: bool) -> None:
        key = (kind, item.metadata.namespace, item.metadata.name)
        old = self._of_owners.pop(key, None)
        if there:
            self._of_owners[key] = _selector(kind, item)
        if old != self._of_owners.get(key):
            self._found.clear()


def _selector(kind: str, item: Any) -> Selector:
    if kind == "ReplicationController":
        return Selector.from_set(dict(item.spec.selector))
    try:
        return from_label_selector(item.spec.selector)
    except SelectorError:
        return Selector.everything()


def _follow(informer: Informer[Any, Any], note: Callable[[Any, bool], None]) -> None:
    informer.add_handler(lambda item: note(item, True), lambda _, new: note(new, True), lambda item: note(item, False))
