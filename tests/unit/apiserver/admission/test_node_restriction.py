"""What a kubelet may write."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.admission.attributes import write
from tests.unit.apiserver.fake_objects import FakeObjects, read
from tiphys.api.authentication.v1.authentication_pb2 import TokenRequest
from tiphys.api.coordination.v1.coordination_pb2 import Lease
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_apimachinery.errors import Forbidden
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.plugins.node_restriction import NodeRestriction, may_label
from tiphys_apiserver.authentication.interface import UserInfo

KUBELET = UserInfo("system:node:a", groups=("system:nodes",))
MIRROR = "{name: m, namespace: kube-system, annotations: {kubernetes.io/config.mirror: x}}"


def node(name: str = "a", labels: str = "{}", taints: str = "[]") -> Any:
    return read(Node, f"{{metadata: {{name: {name}, labels: {labels}}}, spec: {{taints: {taints}}}}}")


def pod(node_name: str = "a", metadata: str = "{name: p, namespace: web}", more: str = "containers: []") -> Any:
    return read(Pod, f"{{metadata: {metadata}, spec: {{nodeName: {node_name}, {more}}}}}")


def lease(name: str, namespace: str = "kube-node-lease") -> Any:
    return read(Lease, f"metadata: {{name: {name}, namespace: {namespace}}}")


def token(reference: str) -> AdmissionAttributes:
    request = read(TokenRequest, f"{{metadata: {{name: bot, namespace: web}}, spec: {{boundObjectRef: {reference}}}}}")
    return write(Operation.CREATE, request, user=KUBELET, subresource="token", parent=ServiceAccount)


def by_kubelet(operation: Operation, obj: Any = None, old: Any = None, subresource: str = "") -> AdmissionAttributes:
    return write(operation, obj, old, user=KUBELET, subresource=subresource)


CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
TAINT = "[{key: k, effect: NoSchedule}]"


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        pytest.param(by_kubelet(CREATE, node()), True, id="register itself"),
        pytest.param(by_kubelet(CREATE, node("b")), False, id="register another"),
        pytest.param(by_kubelet(UPDATE, node(), node(), "status"), True, id="own status"),
        pytest.param(by_kubelet(UPDATE, node("b"), node("b"), "status"), False, id="another's status"),
        pytest.param(by_kubelet(UPDATE, node(taints=TAINT), node()), False, id="change taints"),
        pytest.param(by_kubelet(UPDATE, node(labels="{x: y1}"), node()), True, id="label of its own"),
        pytest.param(
            by_kubelet(UPDATE, node(labels="{node-role.kubernetes.io/x: a}"), node()), False, id="role label"
        ),
        pytest.param(by_kubelet(CREATE, pod()), False, id="pod that is no mirror"),
        pytest.param(by_kubelet(CREATE, pod("a", MIRROR)), True, id="mirror pod"),
        pytest.param(by_kubelet(CREATE, pod("b", MIRROR)), False, id="mirror pod elsewhere"),
        pytest.param(
            by_kubelet(CREATE, pod("a", MIRROR, "volumes: [{name: s, secret: {secretName: s}}]")), False,
            id="mirror pod with a secret",
        ),
        pytest.param(by_kubelet(UPDATE, pod(), pod(), "status"), True, id="status of its pod"),
        pytest.param(by_kubelet(UPDATE, pod("b"), pod("b"), "status"), False, id="status of another's pod"),
        pytest.param(by_kubelet(DELETE, old=pod("b")), False, id="delete another's pod"),
        pytest.param(by_kubelet(DELETE, old=pod()), True, id="delete its pod"),
        pytest.param(by_kubelet(CREATE, lease("a")), True, id="own lease"),
        pytest.param(by_kubelet(CREATE, lease("b")), False, id="another's lease"),
        pytest.param(token("{apiVersion: v1, kind: Pod, name: p, uid: u1}"), True, id="token for its pod"),
        pytest.param(token("{apiVersion: v1, kind: Pod, name: q, uid: u2}"), False, id="token for another's pod"),
        pytest.param(token("{apiVersion: v1, kind: Pod, name: p}"), False, id="token without uid"),
        pytest.param(token("{apiVersion: v1, kind: Secret, name: s, uid: x}"), False, id="token not for a pod"),
    ],
)  # fmt: skip
async def test_H10_kubelet_writes_only_its_own(attributes: AdmissionAttributes, allowed: bool) -> None:
    objects = FakeObjects(
        pod("a", "{name: p, namespace: web, uid: u1}"), pod("b", "{name: q, namespace: web, uid: u2}")
    )
    plugin = NodeRestriction(objects)
    assert plugin.handles(attributes)
    if allowed:
        await plugin.validate(attributes)
    else:
        with pytest.raises(Forbidden):
            await plugin.validate(attributes)


def test_other_users_are_not_judged() -> None:
    assert not NodeRestriction(FakeObjects()).handles(write(CREATE, node("b")))


@pytest.mark.parametrize(
    ("label", "allowed"),
    [
        ("mine", True),
        ("example.com/x", True),
        ("kubernetes.io/hostname", True),
        ("kubelet.kubernetes.io/anything", True),
        ("sub.node.kubernetes.io/x", True),
        ("node-restriction.kubernetes.io/x", False),
        ("example.node-restriction.kubernetes.io/x", False),
        ("foo.k8s.io/x", False),
    ],
)
def test_labels_a_kubelet_may_set(label: str, allowed: bool) -> None:
    assert may_label(label) is allowed
