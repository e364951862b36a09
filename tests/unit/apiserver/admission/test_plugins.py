"""The mutating plug-ins."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.unit.apiserver.admission.attributes import write
from tests.unit.apiserver.fake_objects import FakeObjects, read
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount as Account
from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass
from tiphys.api.storage.v1.storage_pb2 import StorageClass
from tiphys_apimachinery.errors import Forbidden, NotFound
from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.admission.plugins.claim_resize import PersistentVolumeClaimResize
from tiphys_apiserver.admission.plugins.default_storage_class import DefaultStorageClass
from tiphys_apiserver.admission.plugins.default_tolerations import DefaultTolerationSeconds
from tiphys_apiserver.admission.plugins.namespace_lifecycle import ImmortalNamespaces, NamespaceLifecycle
from tiphys_apiserver.admission.plugins.priority import Priority
from tiphys_apiserver.admission.plugins.service_account import ServiceAccount
from tiphys_apiserver.admission.plugins.storage_in_use import StorageObjectInUseProtection
from tiphys_apiserver.admission.plugins.taint_nodes import TaintNodesByCondition
from tiphys_component.clock import FakeClock

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def pod(text: str = "{containers: [{name: c}]}", **metadata: str) -> Any:
    obj: Any = read(Pod, f"spec: {text}")
    obj.metadata.name = metadata.get("name", "p")
    obj.metadata.namespace = metadata.get("namespace", "web")
    return obj


# -- NamespaceLifecycle


async def test_A45_nothing_is_made_in_a_missing_namespace() -> None:
    with pytest.raises(NotFound, match='namespaces "web" not found'):
        await NamespaceLifecycle(FakeObjects()).admit(write(Operation.CREATE, pod()))


async def test_A45_nothing_is_made_in_a_terminating_namespace() -> None:
    objects = FakeObjects(read(Namespace, "{metadata: {name: web}, status: {phase: Terminating}}"))
    with pytest.raises(Forbidden) as refused:
        await NamespaceLifecycle(objects).admit(write(Operation.CREATE, pod()))
    assert refused.value.message == (
        'pods "p" is forbidden: unable to create new content in namespace web because it is being terminated'
    )
    assert refused.value.details is not None
    assert refused.value.details.causes[0].reason == "NamespaceTerminating"


async def test_active_namespace_takes_objects() -> None:
    objects = FakeObjects(read(Namespace, "{metadata: {name: web}, status: {phase: Active}}"))
    await NamespaceLifecycle(objects).admit(write(Operation.CREATE, pod()))


@pytest.mark.parametrize(("name", "refused"), [("default", True), ("kube-system", True), ("mine", False)])
async def test_immortal_namespaces_are_not_changed(name: str, refused: bool) -> None:
    attributes = write(Operation.DELETE, old=read(Namespace, f"metadata: {{name: {name}}}"))
    plugin = ImmortalNamespaces()
    assert plugin.handles(attributes) is refused
    if refused:
        with pytest.raises(Forbidden, match="this namespace may not be deleted"):
            await plugin.validate(attributes)


# -- ServiceAccount


def accounts(text: str = "metadata: {name: default, namespace: web}") -> ServiceAccount:
    return ServiceAccount(FakeObjects(read(Account, text)), FakeClock(), random.Random(1))


async def test_H7_pod_gets_account_token_and_pull_secrets() -> None:
    obj = pod("{initContainers: [{name: i}], containers: [{name: c}]}")
    plugin = accounts("{metadata: {name: default, namespace: web}, imagePullSecrets: [{name: registry}]}")
    await plugin.admit(write(Operation.CREATE, obj))
    assert (obj.spec.serviceAccountName, obj.spec.serviceAccount) == ("default", "default")
    assert [secret.name for secret in obj.spec.imagePullSecrets] == ["registry"]
    volume = obj.spec.volumes[0]
    assert volume.name.startswith("kube-api-access-")
    token, authority, namespace = volume.volumeSource.projected.sources
    assert (token.serviceAccountToken.expirationSeconds, token.serviceAccountToken.path) == (3607, "token")
    assert authority.configMap.localObjectReference.name == "kube-root-ca.crt"
    assert namespace.downwardAPI.items[0].fieldRef.fieldPath == "metadata.namespace"
    for container in (*obj.spec.initContainers, *obj.spec.containers):
        assert [(m.name, m.mountPath, m.readOnly) for m in container.volumeMounts] == [(volume.name, MOUNT, True)]


async def test_container_with_its_own_mount_keeps_it() -> None:
    obj = pod(f"{{containers: [{{name: c, volumeMounts: [{{name: mine, mountPath: {MOUNT}}}]}}]}}")
    await accounts().admit(write(Operation.CREATE, obj))
    assert [mount.name for mount in obj.spec.containers[0].volumeMounts] == ["mine"]
    assert not obj.spec.volumes


@pytest.mark.parametrize(
    ("account", "spec", "mounted"),
    [
        pytest.param("automountServiceAccountToken: false", "{containers: [{name: c}]}", False, id="account says no"),
        pytest.param("{}", "{automountServiceAccountToken: false, containers: [{name: c}]}", False, id="pod says no"),
        pytest.param(
            "automountServiceAccountToken: false",
            "{automountServiceAccountToken: true, containers: [{name: c}]}",
            True,
            id="the pod's word counts",
        ),
    ],
)
async def test_token_is_mounted_only_where_it_is_wanted(account: str, spec: str, mounted: bool) -> None:
    text = "metadata: {name: default, namespace: web}\n" + ("" if account == "{}" else account)
    obj = pod(spec)
    await accounts(text).admit(write(Operation.CREATE, obj))
    assert bool(obj.spec.volumes) is mounted


async def test_unknown_account_is_refused_at_once() -> None:
    with pytest.raises(Forbidden, match='error looking up service account web/other: serviceaccount "other" not found'):
        await accounts().admit(write(Operation.CREATE, pod("{serviceAccountName: other, containers: []}")))


async def test_mirror_pods_have_no_account() -> None:
    obj = pod()
    obj.metadata.annotations["kubernetes.io/config.mirror"] = "x"
    await accounts().admit(write(Operation.CREATE, obj))
    assert not obj.spec.serviceAccountName


# -- Priority

CLASSES = (
    "{metadata: {name: high}, value: 1000, preemptionPolicy: Never}",
    "{metadata: {name: usual}, value: 5, globalDefault: true}",
)


def priorities(*texts: str) -> Priority:
    return Priority(FakeObjects(*(read(PriorityClass, text) for text in texts)))


@pytest.mark.parametrize(
    ("classes", "spec", "wanted"),
    [
        pytest.param((), "{}", ("", 0, "PreemptLowerPriority"), id="no class at all"),
        pytest.param(CLASSES, "{}", ("usual", 5, "PreemptLowerPriority"), id="default class"),
        pytest.param(CLASSES, "{priorityClassName: high}", ("high", 1000, "Never"), id="named class"),
        pytest.param(CLASSES, "{priorityClassName: high, priority: 1000}", ("high", 1000, "Never"), id="same number"),
    ],
)
async def test_A45_priority_comes_from_the_class(classes: tuple[str, ...], spec: str, wanted: tuple[Any, ...]) -> None:
    obj = pod(spec)
    await priorities(*classes).admit(write(Operation.CREATE, obj))
    assert (obj.spec.priorityClassName, obj.spec.priority, obj.spec.preemptionPolicy) == wanted


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param("{priorityClassName: none}", "no PriorityClass with name none was found", id="unknown"),
        pytest.param("{priorityClassName: high, priority: 7}", "must not be provided in pod spec", id="other number"),
        pytest.param(
            "{priorityClassName: high, preemptionPolicy: PreemptLowerPriority}", "PreemptionPolicy", id="other policy"
        ),
    ],
)
async def test_contradictions_of_the_class_are_refused(spec: str, text: str) -> None:
    with pytest.raises(Forbidden, match=text):
        await priorities(*CLASSES).admit(write(Operation.CREATE, pod(spec)))


async def test_a_default_class_that_comes_or_goes_counts_at_once() -> None:
    objects = FakeObjects()
    plugin = Priority(objects)
    seen = []
    for change in ("nothing", "comes", "goes"):
        if change == "comes":
            objects.put(read(PriorityClass, CLASSES[1]))
        elif change == "goes":
            await objects.delete(PriorityClass, "usual")
        obj = pod("{}")
        await plugin.admit(write(Operation.CREATE, obj))
        seen.append(obj.spec.priority)
    assert seen == [0, 5, 0]


# -- the small ones


async def test_A45_pods_outlast_a_lost_node_by_five_minutes() -> None:
    obj = pod("{tolerations: [{key: node.kubernetes.io/not-ready, effect: NoExecute, tolerationSeconds: 10}]}")
    await DefaultTolerationSeconds().admit(write(Operation.CREATE, obj))
    assert [(t.key, t.tolerationSeconds) for t in obj.spec.tolerations] == [
        ("node.kubernetes.io/not-ready", 10),
        ("node.kubernetes.io/unreachable", 300),
    ]


async def test_toleration_of_everything_is_enough() -> None:
    obj = pod("{tolerations: [{operator: Exists}]}")
    await DefaultTolerationSeconds().admit(write(Operation.CREATE, obj))
    assert len(obj.spec.tolerations) == 1


async def test_new_node_is_tainted_once() -> None:
    node: Any = read(Node, "metadata: {name: n}")
    for _ in range(2):
        await TaintNodesByCondition().admit(write(Operation.CREATE, node))
    assert [(t.key, t.effect) for t in node.spec.taints] == [("node.kubernetes.io/not-ready", "NoSchedule")]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [("{}", "fast"), ('{storageClassName: ""}', ""), ("{storageClassName: slow}", "slow")],
)
async def test_unset_storage_class_is_the_default_one(spec: str, wanted: str) -> None:
    mark = "storageclass.kubernetes.io/is-default-class"
    objects = FakeObjects(
        read(StorageClass, f'{{metadata: {{name: fast, annotations: {{{mark}: "true"}}}}, provisioner: x}}'),
        read(StorageClass, "{metadata: {name: slow}, provisioner: x}"),
    )
    claim: Any = read(PersistentVolumeClaim, f"{{metadata: {{name: c, namespace: web}}, spec: {spec}}}")
    await DefaultStorageClass(objects).admit(write(Operation.CREATE, claim))
    assert claim.spec.storageClassName == wanted


@pytest.mark.parametrize("plugin", [Priority(FakeObjects()), DefaultTolerationSeconds(), TaintNodesByCondition()])
def test_other_kinds_are_not_handled(plugin: Any) -> None:
    assert not plugin.handles(write(Operation.CREATE, read(ConfigMap, "metadata: {name: x, namespace: y}")))


# -- StorageObjectInUseProtection, PersistentVolumeClaimResize


@pytest.mark.parametrize(
    ("cls", "finalizer"),
    [(PersistentVolumeClaim, "kubernetes.io/pvc-protection"), (PersistentVolume, "kubernetes.io/pv-protection")],
    ids=["claim", "volume"],
)
async def test_new_claims_and_volumes_are_held_while_in_use(cls: Any, finalizer: str) -> None:
    obj = read(cls, "metadata: {name: data, namespace: web}")
    for _ in range(2):
        await StorageObjectInUseProtection().admit(write(Operation.CREATE, obj))
    assert list(obj.metadata.finalizers) == [finalizer]


def sized(size: str, *, phase: str = "Bound", storage_class: str = "fast") -> Any:
    return read(
        PersistentVolumeClaim,
        f"{{metadata: {{name: data, namespace: web}}, status: {{phase: {phase}}},"
        f" spec: {{storageClassName: {storage_class}, resources: {{requests: {{storage: {size}}}}}}}}}",
    )


NO_RESIZE = (
    "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
)


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        pytest.param(sized("1Gi"), sized("2Gi"), "", id="class allows it"),
        pytest.param(sized("1Gi"), sized("1024Mi"), "", id="same size in other words"),
        pytest.param(
            sized("1Gi", phase="Pending"),
            sized("2Gi"),
            "Only bound persistent volume claims can be expanded",
            id="unbound",
        ),
        pytest.param(
            sized("1Gi", storage_class="slow"), sized("2Gi", storage_class="slow"), NO_RESIZE, id="class does not"
        ),
        pytest.param(sized("1Gi", storage_class='""'), sized("2Gi", storage_class='""'), NO_RESIZE, id="no class"),
    ],
)
async def test_claims_grow_only_where_their_class_allows_it(old: Any, new: Any, refusal: str) -> None:
    objects = FakeObjects(
        read(StorageClass, "{metadata: {name: fast}, allowVolumeExpansion: true}"),
        read(StorageClass, "{metadata: {name: slow}}"),
    )
    judged = PersistentVolumeClaimResize(objects).validate(write(Operation.UPDATE, new, old))
    if not refusal:
        await judged
        return
    with pytest.raises(Forbidden) as refused:
        await judged
    assert refused.value.message == f'persistentvolumeclaims "data" is forbidden: {refusal}'
