"""Keeps every quota's status true: what it limits, and what is used.

Admission counts up as objects are made; this counts anew when a quota appears or changes, when something that it counts
goes, and from time to time, as nothing tells of a write that failed after it was counted.
Source: Kubernetes pkg/controller/resourcequota.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.message import Message

from tiphys.api.core.v1 import pod_pb2, resource_quota_pb2
from tiphys_apimachinery.meta import namespaced_name
from tiphys_apimachinery.pod_resources import Amounts, add, read_amounts, write_amounts
from tiphys_apimachinery.quantity import Quantity
from tiphys_apimachinery.resource_quota import is_counted, kinds_of, matches, usage_of
from tiphys_client.controller import RequeueAfter
from tiphys_client.indexer import NAMESPACE_INDEX
from tiphys_controller_manager.controllers.garbage_collector.controller import collectable
from tiphys_controller_manager.frame import Context, Keys, Watch, own_key

RESYNC_S: Final = 300.0
# Longer than any write takes from its admission to the store.
SETTLE_S: Final = 1.0
ZERO: Final = Quantity.of(0)
Quota = resource_quota_pb2.ResourceQuota


class ResourceQuotaController:
    """Keys are namespace/name of quotas."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._scheme = context.scheme
        self._quotas = context.informers.of(Quota)
        # Version of a quota at which less was found in use than is recorded.
        self._counted: dict[str, str] = {}

    def watches(self) -> Iterable[Watch]:
        """Quotas, and all that they may count: what goes is given back at once. The garbage collector's views serve."""
        others = (
            Watch(info.message, self._gone(info.plural, info.group))
            for info in collectable(self._scheme)
            if info.namespaced and info.message is not pod_pb2.Pod
        )
        return (Watch(Quota, _spec_changed), Watch(pod_pb2.Pod, self._pod_ended), *others)

    def first_keys(self) -> Iterable[str]:
        """None: every quota is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Count one quota anew. Raises errors of the API."""
        quota = self._quotas.get(key)
        if quota is None:
            self._counted.pop(key, None)
            return None
        hard = read_amounts(quota.spec.hard)
        # Read at the server: a view that lags behind the last creates would count too little.
        fresh = await self._current(quota)
        if fresh is None:
            return None
        used = dict.fromkeys(hard, ZERO) | await self._used(fresh, hard)
        recorded = read_amounts(fresh.status.used)
        if read_amounts(fresh.status.hard) == hard and recorded == used:
            self._counted.pop(key, None)
            return RequeueAfter(RESYNC_S)
        is_less = any(used[name] < recorded.get(name, ZERO) for name in used)
        if is_less and self._counted.get(key) != fresh.metadata.resourceVersion:
            # What admission has just counted may not be stored yet: look again when it must be.
            self._counted[key] = fresh.metadata.resourceVersion
            return RequeueAfter(SETTLE_S)
        self._counted.pop(key, None)
        write_amounts(fresh.status.hard, hard)
        write_amounts(fresh.status.used, used)
        # With the version that was read before counting: a create in between makes this a conflict, and a new try.
        await self._client.update_status(fresh)
        return RequeueAfter(RESYNC_S)

    async def _current(self, quota: Any) -> Any | None:
        selector = f"metadata.name={quota.metadata.name}"
        listed = await self._client.list(Quota, quota.metadata.namespace, field_selector=selector)
        return listed.items[0] if listed.items else None

    async def _used(self, quota: Any, hard: Amounts) -> Amounts:
        now = self._clock.now()
        total: Amounts = {}
        for plural, group in sorted(kinds_of(hard)):
            cls = self._class_of(plural, group)
            if cls is None:
                continue
            listed = await self._client.list(cls, quota.metadata.namespace)
            for obj in listed.items:
                if matches(quota, plural, group, obj):
                    total = add(total, usage_of(plural, group, obj, now))
        return {name: amount for name, amount in total.items() if name in hard}

    def _class_of(self, plural: str, group: str) -> type[Message] | None:
        found = [info for info in self._scheme.resources() if info.plural == plural and info.group == group]
        return found[0].message if found and found[0].namespaced else None

    def _pod_ended(self, old: Any, new: Any) -> Iterable[str]:
        now = self._clock.now()
        if old is None or (new is not None and (is_counted(new, now) or not is_counted(old, now))):
            return ()
        return self._counting(old.metadata.namespace, "pods", "")

    def _gone(self, plural: str, group: str) -> Keys:
        def keys(old: Any, new: Any) -> Iterable[str]:
            return () if new is not None else self._counting(old.metadata.namespace, plural, group)

        return keys

    def _counting(self, namespace: str, plural: str, group: str) -> list[str]:
        quotas = self._quotas.by_index(NAMESPACE_INDEX, namespace)
        return [namespaced_name(one) for one in quotas if (plural, group) in kinds_of(read_amounts(one.spec.hard))]


def _spec_changed(old: Any, new: Any) -> Iterable[str]:
    """A quota that is new or limits something else; what admission counts is no reason to count anew."""
    if new is None or (old is not None and old.spec == new.spec):
        return ()
    return own_key(old, new)
