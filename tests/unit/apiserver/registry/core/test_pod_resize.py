"""pods/resize: what it may change, what it refuses, and what everything else may not change instead of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import environment, info_of, read
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apiserver.registry.core.pod import PodStrategy
from tiphys_apiserver.registry.core.qos import qos_class
from tiphys_apiserver.registry.strategy import WriteContext
from tiphys_component.clock import FakeClock

BOTH = "{requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}"


def strategy() -> PodStrategy:
    return PodStrategy(info_of(Pod), environment())


def pod(resources: str = BOTH, *, spec: str = "", container: str = "", metadata: str = "") -> Any:
    text = f"containers: [{{name: c, image: 'busybox:1', resources: {resources}{container}}}]{spec}"
    obj: Any = read(Pod, f"{{metadata: {{name: p, namespace: web{metadata}}}, spec: {{{text}}}}}")
    strategy().apply_defaults(obj)
    obj.status.phase = "Running"
    obj.status.qosClass = qos_class(obj)
    return obj


def resize(new: Any, old: Any) -> list[str]:
    context = WriteContext(FakeClock().now(), namespace="web", subresource="resize")
    rules = strategy()
    rules.apply_defaults(new)
    rules.prepare_for_subresource_update(context, new, old)
    return [str(error) for error in rules.validate_subresource_update(context, new, old)]


def test_D34_cpu_and_memory_change_and_nothing_else_is_taken() -> None:
    old = pod()
    new = pod("{requests: {cpu: 150m, memory: 96Mi}, limits: {cpu: 300m, memory: 128Mi}}", metadata=", labels: {a: b}")
    new.spec.containers[0].image = "busybox:2"
    new.spec.priority = 7
    assert resize(new, old) == []
    assert new.spec.containers[0].resources.limits["cpu"].string == "300m"
    assert (new.spec.containers[0].image, new.spec.priority) == ("busybox:1", 0)
    assert not new.metadata.labels


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        pytest.param("{limits: {cpu: 200m, memory: 128Mi}}", "QOS Class may not change", id="quality class"),
        pytest.param(
            "{requests: {cpu: 300m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}",
            "must be less than or equal to cpu limit",
            id="limit below request",
        ),
        pytest.param(
            "{requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}",
            "resource limits cannot be removed",
            id="limit removed",
        ),
        pytest.param(
            "{requests: {cpu: 100m, memory: 64Mi, ephemeral-storage: 1Gi}, limits: {cpu: 200m, memory: 128Mi}}",
            "only cpu and memory resources are mutable",
            id="another resource",
        ),
    ],
)
def test_D34_bad_changes_are_refused(resources: str, text: str) -> None:
    assert text in " ".join(resize(pod(resources), pod()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param(
            lambda p: p.metadata.annotations.update({"kubernetes.io/config.mirror": "x"}),
            "static pods cannot be resized",
            id="static",
        ),
        pytest.param(lambda p: setattr(p.spec.os, "name", "windows"), "windows pods cannot be resized", id="windows"),
        pytest.param(lambda p: setattr(p.status, "phase", "Succeeded"), "that have ended", id="ended"),
        pytest.param(
            lambda p: p.status.containerStatuses.add(name="c").state.running.SetInParent(),
            "node without support for resize",
            id="an old kubelet",
        ),
    ],
)
def test_D34_some_pods_have_no_resize(change: Any, text: str) -> None:
    old = pod()
    change(old)
    assert text in " ".join(resize(pod("{requests: {cpu: 100m, memory: 65Mi}, limits: {cpu: 1, memory: 1Gi}}"), old))


def test_D34_containers_are_not_added_by_a_resize() -> None:
    new = pod()
    new.spec.containers.add(name="d", image="x")
    assert "may not be added or removed" in " ".join(resize(new, pod()))


def test_D34_a_first_limit_brings_its_policy_along() -> None:
    new = pod("{requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}")
    old = pod("{requests: {cpu: 100m}}")
    assert resize(new, old) == []
    assert {policy.resourceName for policy in new.spec.containers[0].resizePolicy} == {"cpu", "memory"}


def test_D34_policies_are_defaulted_for_what_is_asked_for() -> None:
    policies = pod("{requests: {cpu: 1}, limits: {memory: 1Gi}}").spec.containers[0].resizePolicy
    assert {p.resourceName: p.restartPolicy for p in policies} == {"cpu": "NotRequired", "memory": "NotRequired"}
    assert not pod("{}").spec.containers[0].resizePolicy


@pytest.mark.parametrize(
    ("container", "spec", "text"),
    [
        pytest.param(
            ", resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]",
            ", restartPolicy: Never",
            "must be 'NotRequired' when `restartPolicy` is 'Never'",
            id="restart of what never restarts",
        ),
        pytest.param(
            ", resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired},"
            " {resourceName: cpu, restartPolicy: NotRequired}]",
            "",
            "Duplicate value",
            id="twice",
        ),
        pytest.param(
            ", resizePolicy: [{resourceName: ephemeral-storage, restartPolicy: NotRequired}]",
            "",
            "Unsupported value",
            id="another resource",
        ),
    ],
)
def test_D34_policies_are_validated(container: str, spec: str, text: str) -> None:
    obj = pod(container=container, spec=spec)
    context = WriteContext(FakeClock().now(), namespace="web")
    assert text in " ".join(str(error) for error in strategy().validate(context, obj))


def test_D34_a_plain_update_changes_no_resources() -> None:
    new = pod("{requests: {cpu: 150m, memory: 96Mi}, limits: {cpu: 300m, memory: 128Mi}}")
    context = WriteContext(FakeClock().now(), namespace="web")
    assert "may not change fields" in " ".join(str(e) for e in strategy().validate_update(context, new, pod()))


def test_D34_a_pod_stored_before_the_policy_was_a_default_can_be_labelled() -> None:
    old = pod()
    old.spec.containers[0].ClearField("resizePolicy")
    new = pod(metadata=", labels: {a: b}")
    context = WriteContext(FakeClock().now(), namespace="web")
    assert strategy().validate_update(context, new, old) == []


def test_D34_sidecars_are_resized_and_other_init_containers_are_not() -> None:
    def with_init(policy: str, cpu: str) -> Any:
        init = f", initContainers: [{{name: i, image: x, {policy}resources: {{requests: {{cpu: {cpu}}}}}}}]"
        return pod(spec=init)

    assert resize(with_init("restartPolicy: Always, ", "2"), with_init("restartPolicy: Always, ", "1")) == []
    assert "only cpu and memory" in " ".join(resize(with_init("", "2"), with_init("", "1")))
