"""Lets a namespace take no more than its quotas give.

The use is written into the quota, at the version that was read, before the object is stored: of writes at once, here or
in other servers, no two count on the same rest. A write that fails after this leaves too much counted until the
controller counts anew; never too little.
Source: Kubernetes plugin resourcequota, controller.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota as Quota
from tiphys_apimachinery.errors import Forbidden
from tiphys_apimachinery.pod_resources import Amounts, add, read_amounts, write_amounts
from tiphys_apimachinery.quantity import Quantity
from tiphys_apimachinery.resource_quota import matches, missing_requirements, usage_of
from tiphys_apiserver.admission.by_namespace import ByNamespace
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.clock import Clock

ZERO = Quantity.of(0)
# Reviews and the like store nothing; quotas are no part of what they limit while they are being counted.
_GROUPS_WITHOUT_OBJECTS = frozenset({"authorization.k8s.io", "authentication.k8s.io", "events.k8s.io"})


@dataclass(frozen=True, slots=True)
class _Charge:
    """What one write takes of one quota."""

    quota: str
    amounts: Amounts


class ResourceQuota:
    """Last of the chain: it takes from the quota what everything before it has let pass."""

    name = "ResourceQuota"

    def __init__(self, objects: ObjectAccess, clock: Clock) -> None:
        self._objects = objects
        self._quotas = ByNamespace(objects, Quota)
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """What is made or changed in a namespace; nothing where the cluster has no quota."""
        if attributes.operation not in (Operation.CREATE, Operation.UPDATE) or not attributes.resource.namespaced:
            return False
        resized = (attributes.resource.plural, attributes.subresource) == ("pods", "resize")
        if (attributes.subresource and not resized) or attributes.resource.group in _GROUPS_WITHOUT_OBJECTS:
            return False
        return attributes.object is not None and attributes.resource.plural != "events"

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden naming the quota, what was asked for, what is used and what is allowed."""
        quotas = await self._quotas.of(attributes.namespace)
        if not quotas:
            return
        charges = [charge for quota in quotas if (charge := self._charge(attributes, quota)) is not None]
        if not charges or attributes.dry_run:
            for charge in charges:
                found = Quota()
                found.CopyFrom(next(quota for quota in quotas if quota.metadata.name == charge.quota))
                _take(attributes, found, charge.amounts)
            return
        # One at a time for a namespace: others of this server would only meet each other's versions.
        async with self._locks.setdefault(attributes.namespace, asyncio.Lock()):
            taken: list[_Charge] = []
            try:
                for charge in charges:
                    await self._book(attributes, charge)
                    taken.append(charge)
            except Forbidden:
                for charge in taken:
                    await self._give_back(attributes.namespace, charge)
                raise

    def _charge(self, attributes: AdmissionAttributes, quota: Any) -> _Charge | None:
        resource, new, old = attributes.resource, attributes.object, attributes.old_object
        hard = read_amounts(quota.spec.hard)
        used = self._usage(quota, resource.plural, resource.group, new)
        if resource.plural == "pods" and not resource.group and old is None and used is not None:
            missing = missing_requirements(hard, new)
            if missing:
                listed = "; ".join(f"{name} for: {','.join(containers)}" for name, containers in missing.items())
                raise refuse(attributes, f"failed quota: {quota.metadata.name}: must specify {listed}")
        before = self._usage(quota, resource.plural, resource.group, old) if old is not None else None
        delta = _difference(used or {}, before or {})
        wanted = {name: amount for name, amount in delta.items() if name in hard and amount.nanos > 0}
        return _Charge(quota.metadata.name, wanted) if wanted else None

    def _usage(self, quota: Any, plural: str, group: str, obj: Any) -> Amounts | None:
        """What an object takes of a quota; None where its scopes leave it out."""
        return usage_of(plural, group, obj, self._clock.now()) if matches(quota, plural, group, obj) else None

    async def _book(self, attributes: AdmissionAttributes, charge: _Charge) -> None:
        def change(quota: Any) -> None:
            _take(attributes, quota, charge.amounts)

        await self._objects.modify(Quota, charge.quota, attributes.namespace, change, subresource="status")

    async def _give_back(self, namespace: str, charge: _Charge) -> None:
        def change(quota: Any) -> None:
            used = read_amounts(quota.status.used)
            for name, amount in charge.amounts.items():
                used[name] = max(used.get(name, ZERO) - amount, ZERO)
            write_amounts(quota.status.used, used)

        await self._objects.modify(Quota, charge.quota, namespace, change, subresource="status")


def _difference(new: Mapping[str, Quantity], old: Mapping[str, Quantity]) -> Amounts:
    return add(new, {name: -amount for name, amount in old.items()})


def _take(attributes: AdmissionAttributes, quota: Any, wanted: Amounts) -> None:
    """Count the amounts as used. Raises Forbidden where they are too much."""
    hard, used = read_amounts(quota.status.hard), read_amounts(quota.status.used)
    unknown = sorted(name for name in wanted if name not in hard or name not in used)
    if unknown:
        why = f"status unknown for quota: {quota.metadata.name}, resources: {','.join(unknown)}"
        raise refuse(attributes, why)
    over = sorted(name for name, amount in wanted.items() if used[name] + amount > hard[name])
    if over:
        raise refuse(
            attributes,
            f"exceeded quota: {quota.metadata.name}, requested: {_listed(over, wanted)},"
            f" used: {_listed(over, used)}, limited: {_listed(over, hard)}",
        )
    write_amounts(quota.status.used, add(used, wanted))


def _listed(names: list[str], amounts: Mapping[str, Quantity]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in names)
