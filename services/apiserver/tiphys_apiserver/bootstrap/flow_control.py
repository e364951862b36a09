"""The FlowSchemas and PriorityLevelConfigurations that every cluster has.

Source: names, shares, queues, precedences and rules are those of Kubernetes 1.34, apiserver
pkg/apis/flowcontrol/bootstrap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tiphys.api.flowcontrol.v1.flowcontrol_pb2 import FlowSchema, PriorityLevelConfiguration
from tiphys_apimachinery.errors import AlreadyExists
from tiphys_apiserver.authentication.interface import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, MASTERS
from tiphys_apiserver.registry.objects import ObjectAccess

# An object with this set to true is brought back to what stands here at each start.
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
_ALL = ("*",)
_LEASES = "coordination.k8s.io"
_CONTROLLER_MANAGER = ("User", "system:kube-controller-manager")
_SCHEDULER = ("User", "system:kube-scheduler")
_NODES = ("Group", "system:nodes")
_EVERYBODY = (("Group", ALL_UNAUTHENTICATED), ("Group", ALL_AUTHENTICATED))
# A subject is its kind and name; of a service account, which here is always of kube-system, the name alone.
_Subject = tuple[str, str]


def _level(name: str) -> Any:
    item = PriorityLevelConfiguration()
    item.metadata.name = name
    item.metadata.annotations[AUTOUPDATE] = "true"
    return item


def _exempt_level() -> Any:
    item = _level("exempt")
    item.spec.type = "Exempt"
    item.spec.exempt.nominalConcurrencyShares = 0
    item.spec.exempt.lendablePercent = 0
    return item


def _limited(name: str, shares: int, lendable: int, queues: tuple[int, int, int] | None) -> Any:
    item = _level(name)
    item.spec.type = "Limited"
    limited = item.spec.limited
    limited.nominalConcurrencyShares = shares
    limited.lendablePercent = lendable
    limited.limitResponse.type = "Queue" if queues else "Reject"
    if queues:
        queuing = limited.limitResponse.queuing
        queuing.queues, queuing.handSize, queuing.queueLengthLimit = queues
    return item


def _schema(name: str, level: str, precedence: int, *, by: str = "ByUser", subjects: Sequence[_Subject]) -> Any:
    item = FlowSchema()
    item.metadata.name = name
    item.metadata.annotations[AUTOUPDATE] = "true"
    item.spec.priorityLevelConfiguration.name = level
    item.spec.matchingPrecedence = precedence
    if by:
        item.spec.distinguisherMethod.type = by
    _add_rule(item, subjects)
    return item


def _add_rule(item: Any, subjects: Sequence[_Subject]) -> Any:
    rule = item.spec.rules.add()
    for kind, name in subjects:
        subject = rule.subjects.add(kind=kind)
        if kind == "User":
            subject.user.name = name
        elif kind == "Group":
            subject.group.name = name
        else:
            subject.serviceAccount.namespace, subject.serviceAccount.name = "kube-system", name
    return rule


def _resources(item: Any, verbs: Sequence[str], group: str, resources: Sequence[str], *, cluster: bool = False) -> Any:
    rule = item.spec.rules[-1].resourceRules.add(verbs=verbs, apiGroups=(group,), resources=resources, namespaces=_ALL)
    if cluster:
        rule.clusterScope = True
    return item


def _paths(item: Any, verbs: Sequence[str], urls: Sequence[str]) -> Any:
    item.spec.rules[-1].nonResourceRules.add(verbs=verbs, nonResourceURLs=urls)
    return item


def _everything(item: Any) -> Any:
    _resources(item, _ALL, "*", _ALL, cluster=True)
    return _paths(item, _ALL, _ALL)


MANDATORY_LEVELS = (_exempt_level(), _limited("catch-all", 5, 0, None))
SUGGESTED_LEVELS = (
    _limited("system", 30, 33, (64, 6, 50)),
    _limited("node-high", 40, 25, (64, 6, 50)),
    _limited("leader-election", 10, 0, (16, 4, 50)),
    _limited("workload-high", 40, 50, (128, 6, 50)),
    _limited("workload-low", 100, 90, (128, 6, 50)),
    _limited("global-default", 20, 50, (128, 6, 50)),
)
MANDATORY_SCHEMAS = (
    _everything(_schema("exempt", "exempt", 1, by="", subjects=(("Group", MASTERS),))),
    _everything(_schema("catch-all", "catch-all", 10000, subjects=_EVERYBODY)),
)


def _suggested_schemas() -> tuple[Any, ...]:
    lease_verbs = ("get", "create", "update")
    accounts = (("ServiceAccount", "*"),)
    nodes = _schema("system-node-high", "node-high", 400, subjects=(_NODES,))
    _resources(nodes, _ALL, "", ("nodes", "nodes/status"), cluster=True)
    endpoint_controllers = (
        _CONTROLLER_MANAGER,
        ("ServiceAccount", "endpoint-controller"),
        ("ServiceAccount", "endpointslicemirroring-controller"),
    )
    system_leaders = _schema(
        "system-leader-election", "leader-election", 100, subjects=(_CONTROLLER_MANAGER, _SCHEDULER, *accounts)
    )
    workload_leaders = _schema("workload-leader-election", "leader-election", 200, subjects=accounts)
    endpoints = _schema("endpoint-controller", "workload-high", 150, subjects=endpoint_controllers)
    return (
        _paths(
            _schema("probes", "exempt", 2, by="", subjects=_EVERYBODY),
            ("get",),
            ("/healthz", "/readyz", "/livez"),
        ),
        _resources(system_leaders, lease_verbs, _LEASES, ("leases",)),
        _resources(endpoints, lease_verbs, "", ("endpoints",)),
        _resources(workload_leaders, lease_verbs, _LEASES, ("leases",)),
        _resources(nodes, _ALL, _LEASES, ("leases",)),
        _everything(_schema("system-nodes", "system", 500, subjects=(_NODES,))),
        _everything(
            _schema("kube-controller-manager", "workload-high", 800, by="ByNamespace", subjects=(_CONTROLLER_MANAGER,)),
        ),
        _everything(_schema("kube-scheduler", "workload-high", 800, by="ByNamespace", subjects=(_SCHEDULER,))),
        _everything(_schema("kube-system-service-accounts", "workload-high", 900, by="ByNamespace", subjects=accounts)),
        _everything(_schema("service-accounts", "workload-low", 9000, subjects=(("Group", "system:serviceaccounts"),))),
        _everything(_schema("global-default", "global-default", 9900, subjects=_EVERYBODY)),
    )


SUGGESTED_SCHEMAS = _suggested_schemas()


async def ensure_flow_control(objects: ObjectAccess) -> None:
    """Create what is missing, and bring back what was changed, unless its owner has said that the change is to stay."""
    # In flight together: the store commits them as one.
    async with asyncio.TaskGroup() as group:
        for item in (*MANDATORY_LEVELS, *SUGGESTED_LEVELS, *MANDATORY_SCHEMAS, *SUGGESTED_SCHEMAS):
            group.create_task(_ensure(objects, item))


async def _ensure(objects: ObjectAccess, item: Any) -> None:
    cls: Any = type(item)
    stored: Any = objects.get_nowait(cls, item.metadata.name)
    if stored is None:
        try:
            await objects.create(item)
        except AlreadyExists:
            # Another server of the cluster was quicker.
            return
    elif stored.spec != item.spec and stored.metadata.annotations.get(AUTOUPDATE, "") == "true":
        await objects.modify(cls, item.metadata.name, "", lambda found: found.spec.CopyFrom(item.spec))
