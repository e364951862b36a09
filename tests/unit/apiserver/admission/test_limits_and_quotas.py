"""LimitRanger and ResourceQuota: what is filled in, what is refused, what is counted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.apiserver.admission.attributes import write
from tests.unit.apiserver.fake_objects import FakeObjects, read
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.limit_range_pb2 import LimitRange
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota as Quota
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.errors import Forbidden
from tiphys_apimachinery.pod_resources import read_amounts
from tiphys_apimachinery.resource_quota import kinds_of, matches, usage_of
from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.admission.plugins.limit_ranger import ANNOTATION, LimitRanger
from tiphys_apiserver.admission.plugins.resource_quota import ResourceQuota
from tiphys_component.clock import FakeClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made(cls: type, text: str, name: str = "x") -> Any:
    obj: Any = read(cls, text)
    obj.metadata.name, obj.metadata.namespace = name, "web"
    return obj


def pod(resources: str = "{}", more: str = "") -> Any:
    return made(Pod, f"spec: {{containers: [{{name: c, resources: {resources}}}]{more}}}", "p")


def limits(items: str) -> LimitRanger:
    return LimitRanger(FakeObjects(made(LimitRange, f"spec: {{limits: [{items}]}}")))


async def test_I24_containers_get_the_defaults_of_their_namespace() -> None:
    plugin = limits("{type: Container, max: {cpu: '2'}, default: {memory: 1Gi}, defaultRequest: {cpu: 100m}}")
    obj = pod()
    await plugin.admit(write(Operation.CREATE, obj))
    resources = obj.spec.containers[0].resources
    assert {k: str(v) for k, v in read_amounts(resources.requests).items()} == {"cpu": "100m", "memory": "1Gi"}
    assert {k: str(v) for k, v in read_amounts(resources.limits).items()} == {"cpu": "2", "memory": "1Gi"}
    assert obj.metadata.annotations[ANNOTATION] == (
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    )
    await plugin.validate(write(Operation.CREATE, obj))


@pytest.mark.parametrize(
    ("item", "obj", "text"),
    [
        pytest.param(
            "{type: Container, min: {cpu: 100m}}", pod("{requests: {cpu: 50m}}"),
            "minimum cpu usage per Container is 100m, but request is 50m", id="too little",
        ),
        pytest.param(
            "{type: Container, min: {cpu: 100m}}", pod(),
            "minimum cpu usage per Container is 100m.  No request is specified", id="no request",
        ),
        pytest.param(
            "{type: Container, max: {memory: 1Gi}}", pod("{limits: {memory: 2Gi}}"),
            "maximum memory usage per Container is 1Gi, but limit is 2Gi", id="too much",
        ),
        pytest.param(
            "{type: Container, max: {memory: 1Gi}}", pod(),
            "maximum memory usage per Container is 1Gi.  No limit is specified", id="no limit",
        ),
        pytest.param(
            "{type: Container, maxLimitRequestRatio: {cpu: '2'}}", pod("{limits: {cpu: '4'}, requests: {cpu: '1'}}"),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000", id="ratio",
        ),
        pytest.param(
            "{type: Pod, max: {cpu: '1'}}",
            made(Pod, "spec: {containers: [{name: a, resources: {limits: {cpu: 600m}}},"
                 " {name: b, resources: {limits: {cpu: 600m}}}]}"),
            "maximum cpu usage per Pod is 1, but limit is 1200m", id="all containers together",
        ),
        pytest.param(
            "{type: PersistentVolumeClaim, min: {storage: 1Gi}, max: {storage: 2Gi}}",
            made(PersistentVolumeClaim, "spec: {resources: {requests: {storage: 3Gi}}}"),
            "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi", id="claim",
        ),
        pytest.param(
            "{type: Container, min: {cpu: 1, memory: 1Gi}}", pod(),
            "[minimum cpu usage per Container is 1.  No request is specified,"
            " minimum memory usage per Container is 1Gi.  No request is specified]", id="both",
        ),
    ],
)  # fmt: skip
async def test_I24_limits_are_held(item: str, obj: Any, text: str) -> None:
    plugin = limits(item)
    attributes = write(Operation.CREATE, obj)
    assert plugin.handles(attributes)
    with pytest.raises(Forbidden) as refused:
        await plugin.validate(attributes)
    assert str(refused.value).endswith(f"is forbidden: {text}")


async def test_I24_D34_limits_are_held_when_a_pod_is_resized_and_nothing_is_filled() -> None:
    plugin = limits("{type: Container, max: {cpu: '2'}, default: {memory: 1Gi}}")
    small, large = pod("{limits: {cpu: 1}}"), pod("{limits: {cpu: 3}}")
    resized = write(Operation.UPDATE, large, small, subresource="resize")
    assert plugin.handles(resized)
    assert not plugin.handles(write(Operation.UPDATE, large, small))
    await plugin.admit(resized)
    assert "memory" not in large.spec.containers[0].resources.limits
    with pytest.raises(Forbidden, match="maximum cpu usage per Container is 2, but limit is 3"):
        await plugin.validate(resized)


# -- quotas


def quota(hard: str, used: str = "{}", more: str = "", name: str = "q") -> Any:
    return made(Quota, f"{{spec: {{hard: {hard}{more}}}, status: {{hard: {hard}, used: {used}}}}}", name)


def used_of(objects: FakeObjects, name: str = "q") -> dict[str, str]:
    found = objects.get_nowait(Quota, name, "web")
    assert found is not None
    return {key: str(value) for key, value in sorted(read_amounts(found.status.used).items())}


async def admitted(
    objects: FakeObjects, operation: Operation, obj: Any, old: Any = None, *, subresource: str = ""
) -> None:
    plugin = ResourceQuota(objects, FakeClock(NOW))
    attributes = write(operation, obj, old, subresource=subresource)
    assert plugin.handles(attributes)
    await plugin.validate(attributes)


async def test_I25_what_is_made_is_counted_before_it_is_stored() -> None:
    objects = FakeObjects(quota("{pods: '2', requests.cpu: '1'}", "{pods: '0', requests.cpu: '0'}"))
    await admitted(objects, Operation.CREATE, pod("{requests: {cpu: 300m}}"))
    assert used_of(objects) == {"pods": "1", "requests.cpu": "300m"}


async def test_I25_too_much_is_refused_with_figures_and_counts_nothing() -> None:
    objects = FakeObjects(
        quota("{pods: '5'}", "{pods: '1'}", name="a"),
        quota("{pods: '2', requests.cpu: '1'}", "{pods: '2', requests.cpu: 900m}", name="b"),
    )
    with pytest.raises(Forbidden) as refused:
        await admitted(objects, Operation.CREATE, pod("{requests: {cpu: 300m}}"))
    assert str(refused.value) == (
        'pods "p" is forbidden: exceeded quota: b, requested: pods=1,requests.cpu=300m,'
        " used: pods=2,requests.cpu=900m, limited: pods=2,requests.cpu=1"
    )
    assert used_of(objects, "a") == {"pods": "1"}, "what another quota had counted is given back"


async def test_I25_a_pod_must_say_what_a_quota_counts() -> None:
    objects = FakeObjects(quota("{requests.cpu: '1', limits.memory: 1Gi}", "{requests.cpu: '0', limits.memory: '0'}"))
    with pytest.raises(Forbidden, match=r"failed quota: q: must specify limits.memory for: c; requests.cpu for: c"):
        await admitted(objects, Operation.CREATE, pod())


async def test_I25_a_quota_that_nobody_has_counted_yet_lets_nothing_in() -> None:
    objects = FakeObjects(made(Quota, "spec: {hard: {configmaps: '1'}}", "q"))
    with pytest.raises(Forbidden, match="status unknown for quota: q, resources: configmaps"):
        await admitted(objects, Operation.CREATE, made(ConfigMap, "{}"))


async def test_I25_a_change_counts_the_difference() -> None:
    objects = FakeObjects(quota("{requests.storage: 10Gi}", "{requests.storage: 3Gi}"))
    old = made(PersistentVolumeClaim, "spec: {resources: {requests: {storage: 3Gi}}}")
    new = made(PersistentVolumeClaim, "spec: {resources: {requests: {storage: 5Gi}}}")
    await admitted(objects, Operation.UPDATE, new, old)
    assert used_of(objects) == {"requests.storage": "5Gi"}
    await admitted(objects, Operation.UPDATE, old, new)
    assert used_of(objects) == {"requests.storage": "5Gi"}, "less is counted by the controller"


async def test_I25_D34_a_resized_pod_counts_the_difference() -> None:
    objects = FakeObjects(quota("{requests.cpu: 3}", "{requests.cpu: 1}"))
    old = pod("{requests: {cpu: 1}}")
    await admitted(objects, Operation.UPDATE, pod("{requests: {cpu: 2}}"), old, subresource="resize")
    assert used_of(objects) == {"requests.cpu": "2"}
    with pytest.raises(Forbidden, match="exceeded quota"):
        await admitted(objects, Operation.UPDATE, pod("{requests: {cpu: 4}}"), old, subresource="resize")


@pytest.mark.parametrize(
    ("scope", "obj", "inside"),
    [
        pytest.param("scopes: [BestEffort]", pod(), True, id="best effort"),
        pytest.param("scopes: [BestEffort]", pod("{requests: {cpu: 1}}"), False, id="not best effort"),
        pytest.param("scopes: [NotBestEffort]", pod("{limits: {memory: 1}}"), True, id="burstable"),
        pytest.param("scopes: [Terminating]", pod(more=", activeDeadlineSeconds: 5"), True, id="terminating"),
        pytest.param("scopes: [NotTerminating]", pod(more=", activeDeadlineSeconds: 5"), False, id="not terminating"),
        pytest.param(
            "scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [high]}]}",
            pod(more=", priorityClassName: high"), True, id="class",
        ),
        pytest.param(
            "scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: NotIn, values: [high]}]}",
            pod(more=", priorityClassName: high"), False, id="other class",
        ),
        pytest.param(
            "scopes: [CrossNamespacePodAffinity]",
            pod(more=", affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution:"
                     " [{topologyKey: z, namespaces: [other]}]}}"), True, id="affinity over namespaces",
        ),
        pytest.param("scopes: [BestEffort]", made(ConfigMap, "{}"), False, id="no pod"),
    ],
)  # fmt: skip
def test_I25_scopes(scope: str, obj: Any, inside: bool) -> None:
    plural = "pods" if isinstance(obj, Pod) else "configmaps"
    assert matches(quota("{pods: '1'}", more=f", {scope}"), plural, "", obj) is inside


@pytest.mark.parametrize(
    ("plural", "obj", "usage"),
    [
        pytest.param("services", made(Service, "spec: {type: NodePort, ports: [{port: 1}, {port: 2}]}"),
                     {"count/services": "1", "services": "1", "services.nodeports": "2"}, id="node ports"),
        pytest.param("services", made(Service, "spec: {type: LoadBalancer, ports: [{port: 1}]}"),
                     {"count/services": "1", "services": "1", "services.nodeports": "1", "services.loadbalancers": "1"},
                     id="load balancer"),
        pytest.param("persistentvolumeclaims",
                     made(PersistentVolumeClaim, "spec: {storageClassName: s, resources: {requests: {storage: 1Gi}}}"),
                     {"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "1Gi",
                      "s.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
                      "s.storageclass.storage.k8s.io/requests.storage": "1Gi"}, id="claim"),
        pytest.param("pods", pod("{requests: {cpu: 1, nvidia.com/gpu: 2}, limits: {memory: 1Gi, nvidia.com/gpu: 2}}"),
                     {"count/pods": "1", "pods": "1", "cpu": "1", "requests.cpu": "1", "requests.nvidia.com/gpu": "2",
                      "limits.memory": "1Gi"}, id="pod"),
        pytest.param("pods", made(Pod, "status: {phase: Succeeded}"), {"count/pods": "1"}, id="pod that has ended"),
        pytest.param("configmaps", made(ConfigMap, "{}"), {"count/configmaps": "1", "configmaps": "1"}, id="plain"),
    ],
)  # fmt: skip
def test_I25_usage(plural: str, obj: Any, usage: dict[str, str]) -> None:
    assert {name: str(amount) for name, amount in usage_of(plural, "", obj, NOW).items()} == usage


def test_I25_what_has_to_be_counted_for_a_quota() -> None:
    hard = dict.fromkeys(("count/deployments.apps", "limits.cpu", "services.nodeports", "secrets", "requests.storage"))
    assert kinds_of(hard) == {
        ("deployments", "apps"), ("pods", ""), ("services", ""), ("secrets", ""), ("persistentvolumeclaims", ""),
    }  # fmt: skip
