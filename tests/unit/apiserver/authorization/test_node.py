"""What a kubelet may read and write."""

from __future__ import annotations

import hashlib

import pytest

from tests.unit.apiserver.fake_objects import FakeObjects, read
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes, Verdict
from tiphys_apiserver.authorization.node import NodeAuthorizer
from tiphys_apiserver.authorization.rules import PolicyRule

KUBELET = UserInfo("system:node:a", groups=("system:nodes",))

POD = """
metadata: {name: p, namespace: web, uid: u1}
spec:
  nodeName: a
  serviceAccountName: bot
  imagePullSecrets: [{name: registry}]
  containers:
  - name: c
    envFrom: [{configMapRef: {name: env}}]
    env: [{name: X, valueFrom: {secretKeyRef: {name: password, key: k}}}]
  volumes:
  - {name: s, secret: {secretName: mounted}}
  - {name: p, projected: {sources: [{configMap: {name: projected}}]}}
  - {name: d, persistentVolumeClaim: {claimName: data}}
"""
VOLUME = """
metadata: {name: pv1}
spec:
  claimRef: {namespace: web, name: data}
  csi: {driver: d, volumeHandle: h, nodePublishSecretRef: {namespace: vault, name: mount-key}}
"""


@pytest.fixture
def authorizer() -> NodeAuthorizer:
    objects = FakeObjects(
        read(Pod, POD),
        read(
            Pod, POD.replace("name: p,", "name: q,").replace("nodeName: a", "nodeName: b").replace("mounted", "other")
        ),
        read(PersistentVolume, VOLUME),
        read(PersistentVolumeClaim, "{metadata: {name: data, namespace: web}, spec: {volumeName: pv1}}"),
    )
    return NodeAuthorizer(objects, [PolicyRule(("list", "watch"), ("",), ("services",))])


def ask(verb: str, resource: str, namespace: str = "web", name: str = "", group: str = "", **more: str) -> Attributes:
    plural, _, subresource = resource.partition("/")
    return Attributes(
        KUBELET, verb, True, api_group=group, resource=plural, subresource=subresource, namespace=namespace, name=name,
        **more,
    )  # fmt: skip


COORDINATION = "coordination.k8s.io"
STORAGE = "storage.k8s.io"
# The digest of volume handle, driver and node.
OWN_ATTACHMENT = f"csi-{hashlib.sha256(b'hda').hexdigest()}"


@pytest.mark.parametrize(
    ("question", "allowed"),
    [
        pytest.param(ask("get", "secrets", name="mounted"), True, id="secret of a volume"),
        pytest.param(ask("watch", "secrets", name="password"), True, id="secret of env"),
        pytest.param(ask("get", "secrets", name="registry"), True, id="pull secret"),
        pytest.param(ask("get", "secrets", name="other"), False, id="secret of another node's pod"),
        pytest.param(ask("get", "secrets", "kube-system", "mounted"), False, id="same name elsewhere"),
        pytest.param(ask("list", "secrets"), False, id="all secrets"),
        pytest.param(ask("update", "secrets", name="mounted"), False, id="write a secret"),
        pytest.param(ask("get", "secrets", "vault", "mount-key"), True, id="secret behind claim and volume"),
        pytest.param(ask("watch", "persistentvolumeclaims", name="data"), True, id="follow a claim"),
        pytest.param(ask("watch", "persistentvolumeclaims", name="other"), False, id="follow another's claim"),
        pytest.param(ask("watch", "persistentvolumeclaims"), False, id="follow all claims"),
        pytest.param(ask("list", "persistentvolumes", "", "pv1"), True, id="list one volume"),
        pytest.param(ask("watch", "persistentvolumes", ""), False, id="follow all volumes"),
        pytest.param(ask("watch", "volumeattachments", "", OWN_ATTACHMENT, STORAGE), True, id="attachment to come"),
        pytest.param(ask("get", "volumeattachments", "", "csi-0", STORAGE), False, id="attachment of nobody"),
        pytest.param(ask("get", "configmaps", name="env"), True, id="config map of env"),
        pytest.param(ask("get", "configmaps", name="projected"), True, id="config map projected"),
        pytest.param(ask("get", "persistentvolumeclaims", name="data"), True, id="claim"),
        pytest.param(ask("get", "persistentvolumes", "", "pv1"), True, id="volume of the claim"),
        pytest.param(ask("get", "persistentvolumes", "", "pv2"), False, id="other volume"),
        pytest.param(ask("create", "serviceaccounts/token", name="bot"), True, id="token of its pod's account"),
        pytest.param(ask("create", "serviceaccounts/token", name="default"), False, id="token of another account"),
        pytest.param(ask("get", "nodes", "", "a"), True, id="own node"),
        pytest.param(ask("get", "nodes", "", "b"), False, id="other node"),
        pytest.param(ask("watch", "nodes", "", field_selector="metadata.name=a"), True, id="watch own node"),
        pytest.param(ask("watch", "nodes", ""), False, id="watch all nodes"),
        pytest.param(ask("patch", "nodes/status", "", "a"), True, id="own status"),
        pytest.param(ask("list", "pods", "", field_selector="spec.nodeName=a"), True, id="own pods"),
        pytest.param(ask("list", "pods", "", field_selector="spec.nodeName=b"), False, id="another's pods"),
        pytest.param(ask("list", "pods", ""), False, id="all pods"),
        pytest.param(ask("get", "pods", name="p"), True, id="own pod"),
        pytest.param(ask("get", "pods", name="q"), False, id="another's pod"),
        pytest.param(ask("create", "pods/exec", name="p"), False, id="exec"),
        pytest.param(ask("update", "leases", "kube-node-lease", "a", COORDINATION), True, id="own lease"),
        pytest.param(ask("update", "leases", "kube-node-lease", "b", COORDINATION), False, id="another's lease"),
        pytest.param(ask("get", "leases", "kube-system", "a", COORDINATION), False, id="lease elsewhere"),
        pytest.param(ask("list", "services", ""), True, id="by the static rules"),
        pytest.param(ask("delete", "services", name="x"), False, id="not by the static rules"),
    ],
)
async def test_H10_kubelet_sees_only_its_own(authorizer: NodeAuthorizer, question: Attributes, allowed: bool) -> None:
    assert (await authorizer.authorize(question)).allowed is allowed


async def test_refusal_says_why_and_leaves_it_to_others(authorizer: NodeAuthorizer) -> None:
    decision = await authorizer.authorize(ask("get", "secrets", name="other"))
    assert decision.verdict is Verdict.NO_OPINION
    assert decision.reason == "no relationship found between node 'a' and this object"


async def test_users_that_are_no_kubelets_are_not_judged(authorizer: NodeAuthorizer) -> None:
    for user in (UserInfo("system:node:a"), UserInfo("ann", groups=("system:nodes",))):
        question = Attributes(user, "list", True, resource="services")
        assert (await authorizer.authorize(question)).verdict is Verdict.NO_OPINION


async def test_secrets_of_a_pod_that_came_later_can_be_read() -> None:
    objects = FakeObjects()
    authorizer = NodeAuthorizer(objects, [])
    question = ask("get", "secrets", name="mounted")
    assert not (await authorizer.authorize(question)).allowed
    objects.put(read(Pod, POD))
    assert (await authorizer.authorize(question)).allowed


async def test_mirror_pods_open_no_secrets() -> None:
    pod = read(Pod, POD)
    pod.metadata.annotations["kubernetes.io/config.mirror"] = "x"
    assert not (await NodeAuthorizer(FakeObjects(pod), []).authorize(ask("get", "secrets", name="mounted"))).allowed
