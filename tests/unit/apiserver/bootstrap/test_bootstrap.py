"""What a fresh cluster has, and what a second start changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import FakeObjects
from tests.unit.apiserver.registry.bench import context, strategy_of
from tiphys.api.core.v1.endpoints_pb2 import Endpoints
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys.api.rbac.v1.rbac_pb2 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes
from tiphys_apiserver.authorization.rbac import RBACAuthorizer
from tiphys_apiserver.bootstrap.cluster_objects import ensure_namespaces, ensure_priority_classes
from tiphys_apiserver.bootstrap.kubernetes_service import AdvertisedAddress, KubernetesService
from tiphys_apiserver.bootstrap.rbac import BINDINGS, ROLES, binding_message, ensure_policy, role_message
from tiphys_component.clock import FakeClock
from tiphys_component.log import get_logger


@pytest.fixture
async def cluster() -> FakeObjects:
    objects = FakeObjects()
    await ensure_policy(objects)
    return objects


def ask(user: UserInfo, verb: str, resource: str, namespace: str = "", group: str = "") -> Attributes:
    plural, _, subresource = resource.partition("/")
    return Attributes(user, verb, True, api_group=group, resource=plural, subresource=subresource, namespace=namespace)


def user(name: str, *groups: str) -> UserInfo:
    return UserInfo(name, groups=(*groups, "system:authenticated"))


MANAGER = user("system:kube-controller-manager")
RBAC = "rbac.authorization.k8s.io"


@pytest.mark.parametrize(
    ("question", "allowed"),
    [
        pytest.param(ask(user("root", "system:masters"), "delete", "nodes"), True, id="masters"),
        pytest.param(ask(user("ann"), "get", "pods"), False, id="anybody"),
        pytest.param(
            ask(user("ann"), "create", "selfsubjectaccessreviews", group="authorization.k8s.io"), True, id="self review"
        ),
        pytest.param(ask(user("system:kube-scheduler"), "create", "pods/binding", "web"), True, id="scheduler binds"),
        pytest.param(ask(user("system:kube-scheduler"), "get", "secrets", "web"), False, id="scheduler and secrets"),
        pytest.param(ask(MANAGER, "create", "pods", "web"), True, id="controllers make pods"),
        pytest.param(ask(MANAGER, "update", "deployments/status", "web", "apps"), True, id="controllers write status"),
        pytest.param(
            ask(user("system:kube-proxy"), "watch", "endpointslices", "", "discovery.k8s.io"), True, id="proxy"
        ),
        pytest.param(ask(user("system:kube-proxy"), "list", "secrets"), False, id="proxy and secrets"),
        pytest.param(
            ask(user("system:cluster-dns"), "watch", "endpointslices", "", "discovery.k8s.io"), True, id="dns"
        ),
        pytest.param(ask(user("system:node:a", "system:nodes"), "get", "secrets", "web"), False, id="node by RBAC"),
        pytest.param(
            ask(user("system:serviceaccount:kube-system:job-controller"), "update", "jobs/status", "web", "batch"),
            True,
            id="account of a controller",
        ),
        pytest.param(
            ask(user("system:kube-scheduler"), "update", "leases", "kube-system", "coordination.k8s.io"),
            True,
            id="lock",
        ),
        pytest.param(
            ask(user("system:kube-scheduler"), "update", "leases", "web", "coordination.k8s.io"), False, id="locks"
        ),
    ],
)
async def test_H3_bootstrap_policy_judges(cluster: FakeObjects, question: Attributes, allowed: bool) -> None:
    assert (await RBACAuthorizer(cluster).authorize(question)).allowed is allowed


@pytest.mark.parametrize(
    ("role", "verb", "resource", "group", "allowed"),
    [
        ("view", "get", "pods", "", True),
        ("view", "get", "secrets", "", False),
        ("view", "create", "pods", "", False),
        ("edit", "create", "deployments", "apps", True),
        ("edit", "get", "secrets", "", True),
        ("edit", "create", "roles", RBAC, False),
        ("admin", "create", "roles", RBAC, True),
        ("admin", "create", "pods/exec", "", True),
        ("admin", "update", "resourcequotas", "", False),
    ],
)
async def test_H3_roles_for_people(
    cluster: FakeObjects, role: str, verb: str, resource: str, group: str, allowed: bool
) -> None:
    binding: Any = RoleBinding()
    binding.metadata.name, binding.metadata.namespace = "b", "web"
    binding.roleRef.kind, binding.roleRef.name = "ClusterRole", role
    binding.subjects.add(kind="User", name="ann")
    cluster.put(binding)
    decision = await RBACAuthorizer(cluster).authorize(ask(user("ann"), verb, resource, "web", group))
    assert decision.allowed is allowed


async def test_anonymous_sees_health_and_version_only(cluster: FakeObjects) -> None:
    anonymous = UserInfo("system:anonymous", groups=("system:unauthenticated",))
    rbac = RBACAuthorizer(cluster)
    answers = {
        path: (await rbac.authorize(Attributes(anonymous, "get", False, path=path))).allowed
        for path in ("/healthz", "/version", "/api", "/metrics")
    }
    assert answers == {"/healthz": True, "/version": True, "/api": False, "/metrics": False}


async def test_second_start_writes_nothing(cluster: FakeObjects) -> None:
    versions = [cluster.version(cls) for cls in (ClusterRole, Role, ClusterRoleBinding, RoleBinding)]
    await ensure_policy(cluster)
    assert versions == [cluster.version(cls) for cls in (ClusterRole, Role, ClusterRoleBinding, RoleBinding)]


async def test_what_users_added_stays_and_what_they_took_comes_back(cluster: FakeObjects) -> None:
    role: Any = cluster.get_nowait(ClusterRole, "system:kube-dns")
    role.ClearField("rules")
    role.rules.add(verbs=["get"], apiGroups=["x"], resources=["y"])
    cluster.put(role)
    binding: Any = cluster.get_nowait(ClusterRoleBinding, "system:node")
    binding.subjects.add(kind="Group", name="mine")
    cluster.put(binding)
    await ensure_policy(cluster)
    role = cluster.get_nowait(ClusterRole, "system:kube-dns")
    assert [list(rule.resources) for rule in role.rules] == [["y"], ["endpoints", "services"]]
    binding = cluster.get_nowait(ClusterRoleBinding, "system:node")
    assert [subject.name for subject in binding.subjects] == ["mine"]


async def test_role_without_autoupdate_is_left_alone(cluster: FakeObjects) -> None:
    role: Any = cluster.get_nowait(ClusterRole, "system:kube-dns")
    role.ClearField("rules")
    role.metadata.annotations["rbac.authorization.kubernetes.io/autoupdate"] = "false"
    cluster.put(role)
    await ensure_policy(cluster)
    role = cluster.get_nowait(ClusterRole, "system:kube-dns")
    assert not role.rules


async def test_binding_to_another_role_is_made_anew(cluster: FakeObjects) -> None:
    binding: Any = cluster.get_nowait(ClusterRoleBinding, "system:discovery")
    binding.roleRef.name = "view"
    cluster.put(binding)
    await ensure_policy(cluster)
    binding = cluster.get_nowait(ClusterRoleBinding, "system:discovery")
    assert binding.roleRef.name == "system:discovery"


def test_all_of_the_policy_is_valid() -> None:
    for message in [*map(role_message, ROLES), *map(binding_message, BINDINGS)]:
        strategy = strategy_of(type(message))
        strategy.apply_defaults(message)
        assert strategy.validate(context(), message) == [], message.metadata.name
        assert strategy.validate_name(message.metadata.name) == []


def test_every_binding_names_a_role_of_the_tables() -> None:
    known = {(role.namespace, role.name) for role in ROLES}
    for binding in BINDINGS:
        namespace = binding.namespace if binding.role_kind == "Role" else ""
        assert (namespace, binding.role_name) in known, binding.name


async def test_A26_fresh_cluster_has_four_namespaces_and_two_priority_classes() -> None:
    objects = FakeObjects()
    for _ in range(2):
        await ensure_namespaces(objects)
        await ensure_priority_classes(objects)
    names = [namespace.metadata.name for namespace in await objects.list(Namespace)]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]
    assert {item.metadata.name: item.value for item in await objects.list(PriorityClass)} == {
        "system-cluster-critical": 2000000000,
        "system-node-critical": 2000001000,
    }


def kubernetes_service(objects: FakeObjects, address: str = "198.18.0.1", port: int = 6443) -> KubernetesService:
    advertised = AdvertisedAddress(address, port, "10.96.0.0/12")
    return KubernetesService(objects, FakeClock(), advertised, get_logger("test"))


async def test_G24_kubernetes_service_leads_to_the_advertised_address() -> None:
    objects = FakeObjects()
    await kubernetes_service(objects).reconcile()
    service: Any = objects.get_nowait(Service, "kubernetes", "default")
    assert (service.spec.clusterIP, service.spec.ports[0].port, service.spec.ports[0].targetPort.intVal) == (
        "10.96.0.1",
        443,
        6443,
    )
    made: Any = objects.get_nowait(EndpointSlice, "kubernetes", "default")
    assert (list(made.endpoints[0].addresses), made.ports[0].port, made.addressType) == (["198.18.0.1"], 6443, "IPv4")
    assert made.metadata.labels["kubernetes.io/service-name"] == "kubernetes"
    endpoints: Any = objects.get_nowait(Endpoints, "kubernetes", "default")
    assert endpoints.subsets[0].addresses[0].ip == "198.18.0.1"


async def test_G24_endpoints_follow_the_address_and_are_mended() -> None:
    objects = FakeObjects()
    await kubernetes_service(objects).reconcile()
    await kubernetes_service(objects, "198.18.0.2", 7443).reconcile()
    made: Any = objects.get_nowait(EndpointSlice, "kubernetes", "default")
    assert (list(made.endpoints[0].addresses), made.ports[0].port) == (["198.18.0.2"], 7443)
    await objects.delete(EndpointSlice, "kubernetes", "default")
    await kubernetes_service(objects, "198.18.0.2", 7443).reconcile()
    assert objects.get_nowait(EndpointSlice, "kubernetes", "default") is not None


async def test_nothing_is_written_where_nothing_differs() -> None:
    objects = FakeObjects()
    await kubernetes_service(objects).reconcile()
    before = objects.version(EndpointSlice), objects.version(Service)
    await kubernetes_service(objects).reconcile()
    assert before == (objects.version(EndpointSlice), objects.version(Service))


async def test_loopback_address_is_no_endpoint() -> None:
    objects = FakeObjects()
    await kubernetes_service(objects, "127.0.0.1").reconcile()
    assert objects.get_nowait(Service, "kubernetes", "default") is not None
    assert objects.get_nowait(EndpointSlice, "kubernetes", "default") is None
