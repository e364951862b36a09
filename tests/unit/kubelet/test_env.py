"""The environment of containers."""

from __future__ import annotations

import pytest

from tests.unit.kubelet.builders import make_pod
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.downward import DownwardError, field_value
from tiphys_kubelet.objects import ObjectKey, referenced_by
from tiphys_kubelet.runtime.env import ConfigError, EnvContext, make_env, service_env
from tiphys_kubelet.runtime.expansion import expand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("a$", "a$"),
        ("$()", "$()"),
        ("$($(A))", "$($(A))"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


def service(name: str, namespace: str, address: str = "10.96.0.9") -> Service:
    """A service of one named port."""
    made = Service()
    made.metadata.name, made.metadata.namespace, made.spec.clusterIP = name, namespace, address
    made.spec.ports.add(name="http-web", port=80, protocol="TCP")
    return made


def test_services_of_the_namespace_and_the_master_become_variables() -> None:
    pod = make_pod("app")
    env = service_env(pod, [service("my-db", "default"), service("other", "far"), service("kubernetes", "default")])
    assert env["MY_DB_SERVICE_HOST"] == "10.96.0.9"
    assert env["MY_DB_SERVICE_PORT_HTTP_WEB"] == "80"
    assert env["MY_DB_PORT_80_TCP"] == "tcp://10.96.0.9:80"
    assert "KUBERNETES_SERVICE_HOST" in env
    assert not any(name.startswith("OTHER") for name in env)


def test_without_service_links_only_the_master_is_known() -> None:
    pod = make_pod("app", enableServiceLinks=False)
    env = service_env(pod, [service("my-db", "default"), service("kubernetes", "default")])
    assert {name.split("_")[0] for name in env} == {"KUBERNETES"}


def test_headless_services_have_no_variables() -> None:
    assert service_env(make_pod("app"), [service("none", "default", "None")]) == {}


def test_env_overrides_env_from_and_both_override_services() -> None:
    pod = make_pod("app")
    container = pod.spec.containers[0]
    container.envFrom.add().configMapRef.localObjectReference.name = "conf"
    container.env.add(name="B", value="own")
    container.env.add(name="C", value="$(A)+$(DB_SERVICE_HOST)")
    config = ConfigMap(data={"A": "1", "B": "2", "DB_SERVICE_HOST": "mine"})
    context = EnvContext(objects={ObjectKey(ConfigMap, "default", "conf"): config}, services=[service("db", "default")])
    env = make_env(pod, container, context)
    assert (env["A"], env["B"], env["C"], env["DB_SERVICE_HOST"]) == ("1", "own", "1+mine", "mine")
    assert env["DB_SERVICE_PORT"] == "80"


@pytest.mark.parametrize(
    ("kind", "optional", "message"),
    [
        ("configMapKeyRef", False, 'configmap "x" not found'),
        ("secretKeyRef", False, 'secret "x" not found'),
        ("configMapKeyRef", True, None),
        ("secretKeyRef", True, None),
    ],
)
def test_missing_object_is_told_unless_it_is_optional(kind: str, optional: bool, message: str | None) -> None:
    pod = make_pod("app")
    variable = pod.spec.containers[0].env.add(name="V")
    reference = getattr(variable.valueFrom, kind)
    reference.localObjectReference.name, reference.key, reference.optional = "x", "k", optional
    if message is None:
        assert "V" not in make_env(pod, pod.spec.containers[0], EnvContext())
        return
    with pytest.raises(ConfigError, match=message):
        make_env(pod, pod.spec.containers[0], EnvContext())


def test_missing_key_is_told() -> None:
    pod = make_pod("app")
    reference = pod.spec.containers[0].env.add(name="V").valueFrom.secretKeyRef
    reference.localObjectReference.name, reference.key = "s", "k"
    context = EnvContext(objects={ObjectKey(Secret, "default", "s"): Secret()})
    with pytest.raises(ConfigError, match="couldn't find key k in Secret default/s"):
        make_env(pod, pod.spec.containers[0], context)


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("limits.cpu", "", "2"),
        ("limits.cpu", "1m", "1500"),
        ("limits.memory", "1Mi", "64"),
        ("requests.cpu", "1m", "0"),
        ("limits.ephemeral-storage", "", "77"),
    ],
    ids=["cpu-rounded-up", "cpu-millis", "memory-in-mebi", "unset-request", "unset-limit-is-the-nodes"],
)
def test_resource_fields(resource: str, divisor: str, expected: str) -> None:
    pod = make_pod("app")
    limits = pod.spec.containers[0].resources.limits
    limits["cpu"].string, limits["memory"].string = "1500m", "64Mi"
    reference = pod.spec.containers[0].env.add(name="V").valueFrom.resourceFieldRef
    reference.resource, reference.divisor.string = resource, divisor
    context = EnvContext(allocatable={"ephemeral-storage": Quantity.parse("77")})
    assert make_env(pod, pod.spec.containers[0], context)["V"] == expected


def test_fields_of_the_pod() -> None:
    pod = make_pod("app")
    pod.metadata.labels["app"] = 'a"b'
    assert field_value(pod, "metadata.labels['app']") == 'a"b'
    assert field_value(pod, "metadata.labels") == 'app="a\\"b"'
    assert field_value(pod, "status.podIPs", pod_ips=("1.1.1.1", "::1")) == "1.1.1.1,::1"
    with pytest.raises(DownwardError, match=r"unsupported fieldPath: spec\.nope"):
        field_value(pod, "spec.nope")


def test_every_reference_of_a_pod_is_found() -> None:
    pod = make_pod("app", init=("one",))
    pod.spec.containers[0].envFrom.add().secretRef.localObjectReference.name = "a"
    pod.spec.initContainers[0].env.add(name="V").valueFrom.configMapKeyRef.localObjectReference.name = "b"
    pod.spec.volumes.add(name="v").volumeSource.configMap.localObjectReference.name = "c"
    projected = pod.spec.volumes.add(name="p").volumeSource.projected
    projected.sources.add().secret.localObjectReference.name = "d"
    pod.spec.imagePullSecrets.add(name="e")
    found = {(key.kind_name, key.name) for key in referenced_by(pod)}
    assert found == {("Secret", "a"), ("ConfigMap", "b"), ("ConfigMap", "c"), ("Secret", "d"), ("Secret", "e")}
