"""Writes the RBAC tables: what is missing is added, what users added stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from tiphys.api.rbac.v1.rbac_pb2 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from tiphys_apimachinery.errors import AlreadyExists
from tiphys_apiserver.authorization.rules import PolicyRule, uncovered
from tiphys_apiserver.bootstrap.component_roles import COMPONENT_BINDINGS, COMPONENT_ROLES
from tiphys_apiserver.bootstrap.controller_roles import CONTROLLER_BINDINGS, CONTROLLER_ROLES
from tiphys_apiserver.bootstrap.namespaced_roles import NAMESPACED_BINDINGS, NAMESPACED_ROLES
from tiphys_apiserver.bootstrap.policy import (
    AGGREGATE_LABEL_PREFIX,
    AUTOUPDATE_ANNOTATION,
    BOOTSTRAP_LABEL,
    BOOTSTRAP_LABEL_VALUE,
    RBAC_GROUP,
    BindingSpec,
    RoleSpec,
    Rule,
)
from tiphys_apiserver.bootstrap.user_roles import USER_BINDINGS, USER_ROLES
from tiphys_apiserver.registry.objects import ObjectAccess

ROLES: Sequence[RoleSpec] = (*USER_ROLES, *COMPONENT_ROLES, *CONTROLLER_ROLES, *NAMESPACED_ROLES)
BINDINGS: Sequence[BindingSpec] = (
    *USER_BINDINGS,
    *COMPONENT_BINDINGS,
    *CONTROLLER_BINDINGS,
    *NAMESPACED_BINDINGS,
)
# Writes in flight together: the store commits them as one.
_AT_ONCE = 32


async def ensure_policy(objects: ObjectAccess) -> None:
    """Bring all bootstrap roles and bindings up to date. Safe to run twice and by several servers at once."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def limited(step: Any) -> None:
        async with limit:
            await step

    async with asyncio.TaskGroup() as group:
        for role in ROLES:
            group.create_task(limited(_ensure_role(objects, role)))
        for binding in BINDINGS:
            group.create_task(limited(_ensure_binding(objects, binding)))


async def _ensure_role(objects: ObjectAccess, spec: RoleSpec) -> None:
    wanted = role_message(spec)
    cls: Any = type(wanted)
    existing: Any = objects.get_nowait(cls, spec.name, spec.namespace)
    if existing is None:
        try:
            await objects.create(wanted)
            return
        except AlreadyExists:
            pass
    elif not role_differs(existing, wanted):
        return
    await objects.modify(cls, spec.name, spec.namespace, lambda role: merge_role(role, wanted))


async def _ensure_binding(objects: ObjectAccess, spec: BindingSpec) -> None:
    wanted = binding_message(spec)
    cls: Any = type(wanted)
    existing: Any = objects.get_nowait(cls, spec.name, spec.namespace)
    if existing is not None and existing.roleRef != wanted.roleRef and _updates_itself(existing):
        # roleRef cannot change: the binding has to be made anew.
        await objects.delete(cls, spec.name, spec.namespace)
        existing = None
    if existing is None:
        try:
            await objects.create(wanted)
            return
        except AlreadyExists:
            pass
    elif not binding_differs(existing, wanted):
        return
    await objects.modify(cls, spec.name, spec.namespace, lambda binding: merge_binding(binding, wanted))


def role_message(spec: RoleSpec) -> Any:
    """The Role or ClusterRole of a table entry."""
    role: Any = Role() if spec.namespace else ClusterRole()
    _fill_metadata(role.metadata, spec.name, spec.namespace)
    for key, value in spec.labels.items():
        role.metadata.labels[key] = value
    rules: Iterable[Rule] = spec.rules
    if spec.aggregate_from:
        selector = role.aggregationRule.clusterRoleSelectors.add()
        selector.matchLabels[f"{AGGREGATE_LABEL_PREFIX}{spec.aggregate_from}"] = "true"
        rules = aggregated_rules(spec)
    for rule in rules:
        role.rules.add(
            verbs=rule.verbs,
            apiGroups=rule.api_groups,
            resources=rule.resources,
            resourceNames=rule.resource_names,
            nonResourceURLs=rule.urls,
        )
    return role


def aggregated_rules(spec: RoleSpec) -> list[Rule]:
    """The rules that an aggregated role of the table has by the table itself, each once."""
    label = f"{AGGREGATE_LABEL_PREFIX}{spec.aggregate_from}"
    found: dict[Rule, None] = {}
    for other in sorted(ROLES, key=lambda role: role.name):
        if label in other.labels:
            rules = aggregated_rules(other) if other.aggregate_from else other.rules
            found.update(dict.fromkeys(rules))
    return list(found)


def binding_message(spec: BindingSpec) -> Any:
    """The RoleBinding or ClusterRoleBinding of a table entry."""
    binding: Any = RoleBinding() if spec.namespace else ClusterRoleBinding()
    _fill_metadata(binding.metadata, spec.name, spec.namespace)
    binding.roleRef.apiGroup = RBAC_GROUP
    binding.roleRef.kind = spec.role_kind
    binding.roleRef.name = spec.role_name
    for subject in spec.subjects:
        item = binding.subjects.add(kind=subject.kind, name=subject.name)
        if subject.kind == "ServiceAccount":
            item.namespace = subject.namespace
        else:
            item.apiGroup = RBAC_GROUP
    return binding


def _fill_metadata(metadata: Any, name: str, namespace: str) -> None:
    metadata.name = name
    if namespace:
        metadata.namespace = namespace
    metadata.labels[BOOTSTRAP_LABEL] = BOOTSTRAP_LABEL_VALUE
    metadata.annotations[AUTOUPDATE_ANNOTATION] = "true"


def _updates_itself(existing: Any) -> bool:
    return bool(existing.metadata.annotations.get(AUTOUPDATE_ANNOTATION, "") != "false")


def _missing_rules(existing: Any, wanted: Any) -> list[Any]:
    held = [PolicyRule.from_message(rule) for rule in existing.rules]
    return [rule for rule in wanted.rules if uncovered(held, [PolicyRule.from_message(rule)])]


def _lacks_metadata(existing: Any, wanted: Any) -> bool:
    return any(
        key not in getattr(existing.metadata, member)
        for member in ("labels", "annotations")
        for key in getattr(wanted.metadata, member)
    )


def role_differs(existing: Any, wanted: Any) -> bool:
    """Whether an existing role, which its owner lets us update, lacks anything of the table's."""
    if not _updates_itself(existing):
        return False
    # The rules of an aggregated role are the aggregation controller's.
    if _lacks_metadata(existing, wanted):
        return True
    if _is_aggregated(wanted):
        return not _is_aggregated(existing)
    return bool(_missing_rules(existing, wanted))


def _is_aggregated(role: Any) -> bool:
    return "aggregationRule" in role.DESCRIPTOR.fields_by_name and bool(role.HasField("aggregationRule"))


def merge_role(existing: Any, wanted: Any) -> None:
    """Add to existing what it lacks; take nothing away."""
    if not _updates_itself(existing):
        return
    _merge_metadata(existing, wanted)
    if _is_aggregated(wanted):
        if not _is_aggregated(existing):
            existing.aggregationRule.CopyFrom(wanted.aggregationRule)
        return
    existing.rules.extend(_missing_rules(existing, wanted))


def binding_differs(existing: Any, wanted: Any) -> bool:
    """Whether an existing binding, which its owner lets us update, lacks anything of the table's."""
    if not _updates_itself(existing):
        return False
    return _lacks_metadata(existing, wanted) or any(subject not in existing.subjects for subject in wanted.subjects)


def merge_binding(existing: Any, wanted: Any) -> None:
    """Add to existing the subjects it lacks."""
    if not _updates_itself(existing):
        return
    _merge_metadata(existing, wanted)
    existing.subjects.extend([subject for subject in wanted.subjects if subject not in existing.subjects])


def _merge_metadata(existing: Any, wanted: Any) -> None:
    for member in ("labels", "annotations"):
        target = getattr(existing.metadata, member)
        for key, value in getattr(wanted.metadata, member).items():
            if key not in target:
                target[key] = value
