"""Handing out rights."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.admission.attributes import write
from tests.unit.apiserver.fake_objects import FakeObjects, read
from tiphys.api.rbac.v1.rbac_pb2 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from tiphys_apimachinery.errors import Forbidden, NotFound
from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.admission.plugins.rbac_escalation import RBACEscalation
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.escalation import EscalationCheck
from tiphys_apiserver.authorization.rbac import RBACAuthorizer

ANN = UserInfo("ann", groups=("dev",))
MASTER = UserInfo("root", groups=("system:masters",))
READER = "{metadata: {name: reader}, rules: [{verbs: [get, list], apiGroups: [''], resources: [pods]}]}"
ADMIN = "{metadata: {name: all}, rules: [{verbs: ['*'], apiGroups: ['*'], resources: ['*']}]}"
GRANTS_ESCALATE = (
    "{metadata: {name: esc}, rules: [{verbs: [escalate, bind], apiGroups: [rbac.authorization.k8s.io],"
    " resources: [roles, clusterroles]}]}"
)


def binding(name: str, role: str, user: str = "ann") -> Any:
    return read(
        ClusterRoleBinding,
        f"{{metadata: {{name: {name}}}, roleRef: {{kind: ClusterRole, name: {role}}},"
        f" subjects: [{{kind: User, name: {user}}}]}}",
    )


def plugin(*more: Any) -> RBACEscalation:
    roles = [read(ClusterRole, text) for text in (READER, ADMIN, GRANTS_ESCALATE)]
    objects = FakeObjects(*roles, binding("b", "reader"), *more)
    rbac = RBACAuthorizer(objects)
    return RBACEscalation(objects, EscalationCheck(rbac, rbac))


def role(verbs: str, name: str = "r") -> Any:
    rules = f"[{{verbs: [{verbs}], apiGroups: [''], resources: [pods]}}]"
    return read(Role, f"{{metadata: {{name: {name}, namespace: web}}, rules: {rules}}}")


def role_binding(to: str) -> Any:
    text = f"{{metadata: {{name: x, namespace: web}}, roleRef: {{kind: ClusterRole, name: {to}}}, subjects: []}}"
    return read(RoleBinding, text)


async def test_H3_role_with_more_than_its_author_holds_is_refused() -> None:
    with pytest.raises(Forbidden) as refused:
        await plugin().validate(write(Operation.CREATE, role("get, delete"), user=ANN))
    assert refused.value.message == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "ann" (groups=["dev"]) is attempting to grant RBAC'
        ' permissions not currently held:\n{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}'
    )


@pytest.mark.parametrize(
    ("obj", "user", "more"),
    [
        pytest.param(role("get"), ANN, (), id="no more than held"),
        pytest.param(role("delete"), MASTER, (), id="master"),
        pytest.param(role("delete"), ANN, (binding("e", "esc"),), id="verb escalate"),
        pytest.param(role_binding("reader"), ANN, (), id="binding to what is held"),
        pytest.param(role_binding("all"), ANN, (binding("e", "esc"),), id="verb bind"),
    ],
)
async def test_allowed_grants(obj: Any, user: UserInfo, more: tuple[Any, ...]) -> None:
    await plugin(*more).validate(write(Operation.CREATE, obj, user=user))


async def test_binding_to_more_than_is_held_is_refused() -> None:
    with pytest.raises(Forbidden, match="not currently held"):
        await plugin().validate(write(Operation.CREATE, role_binding("all"), user=ANN))


async def test_binding_to_a_missing_role_is_not_found() -> None:
    with pytest.raises(NotFound, match=r'clusterroles\.rbac\.authorization\.k8s\.io "gone" not found'):
        await plugin().validate(write(Operation.CREATE, role_binding("gone"), user=ANN))


async def test_change_of_metadata_alone_passes() -> None:
    old = role("delete")
    new = role("delete")
    new.metadata.labels["x"] = "y"
    await plugin().validate(write(Operation.UPDATE, new, old, user=ANN))


async def test_aggregation_needs_everything() -> None:
    text = "{metadata: {name: a}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {x: z}}]}}"
    with pytest.raises(Forbidden, match="aggregationRule"):
        await plugin().validate(write(Operation.CREATE, read(ClusterRole, text), user=ANN))
