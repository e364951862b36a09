"""Pods: defaults, faults, changes, ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import environment, info_of, read
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apiserver.registry.core.pod import PodStrategy
from tiphys_apiserver.registry.core.pod_defaults import pull_policy
from tiphys_apiserver.registry.core.qos import qos_class
from tiphys_apiserver.registry.strategy import WriteContext
from tiphys_component.clock import FakeClock

BASE = "{containers: [{name: c, image: 'busybox:1'}]}"


def strategy() -> PodStrategy:
    return PodStrategy(info_of(Pod), environment())


def context(subresource: str = "") -> WriteContext:
    return WriteContext(FakeClock().now(), namespace="web", subresource=subresource)


def pod(spec: str = BASE, metadata: str = "{name: p, namespace: web}") -> Any:
    obj: Any = read(Pod, f"{{metadata: {metadata}, spec: {spec}}}")
    strategy().apply_defaults(obj)
    return obj


def container(more: str) -> str:
    return f"{{containers: [{{name: c, image: 'busybox:1', {more}}}]}}"


def faults(spec: str) -> list[str]:
    obj = pod(spec)
    return [str(error) for error in strategy().validate(context(), obj)]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.2", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0", "IfNotPresent"),
        ("nginx:latest@sha256:0", "Always"),
    ],
)
def test_D14_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_defaults_fill_what_follows_from_other_fields() -> None:
    text = (
        "{hostNetwork: true, volumes: [{name: v}, {name: h, hostPath: {path: /x}}, {name: s, secret: {secretName: s}}],"
    )
    text += " containers: [{name: c, image: x, ports: [{containerPort: 80}], resources: {limits: {cpu: '1'}}}]}"
    spec = pod(text).spec
    assert spec.restartPolicy == "Always"
    assert (spec.terminationGracePeriodSeconds, spec.enableServiceLinks) == (30, True)
    assert spec.HasField("securityContext")
    assert spec.containers[0].resources.requests["cpu"].string == "1"
    assert spec.containers[0].ports[0].hostPort == 80
    first, host, secret = (volume.volumeSource for volume in spec.volumes)
    assert first.HasField("emptyDir")
    assert host.hostPath.HasField("type")
    assert secret.secret.defaultMode == 0o644


def test_defaults_are_stable() -> None:
    once, twice = pod(), pod()
    strategy().apply_defaults(twice)
    assert once == twice


def test_new_pod_is_pending_in_its_class() -> None:
    obj = pod()
    obj.status.phase = "Running"
    strategy().prepare_for_create(context(), obj)
    assert (obj.status.phase, obj.status.qosClass) == ("Pending", "BestEffort")


def test_gated_pod_says_so() -> None:
    obj = pod("{schedulingGates: [{name: g}], containers: [{name: c, image: x}]}")
    strategy().prepare_for_create(context(), obj)
    condition = obj.status.conditions[0]
    assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "SchedulingGated")


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        pytest.param("{}", "BestEffort", id="nothing said"),
        pytest.param("{requests: {cpu: 100m}}", "Burstable", id="a request"),
        pytest.param("{limits: {memory: 1Gi}}", "Burstable", id="one limit"),
        pytest.param("{limits: {cpu: '1', memory: 1Gi}}", "Guaranteed", id="limits of both"),
        pytest.param("{limits: {cpu: '1', memory: 1Gi}, requests: {cpu: 500m}}", "Burstable", id="less asked"),
        pytest.param("{limits: {example.com/gpu: '1'}}", "BestEffort", id="devices do not count"),
        pytest.param("{limits: {cpu: '1', memory: 1Gi}, requests: {cpu: 1000m}}", "Guaranteed", id="same amount"),
    ],
)
def test_I6_quality_class(resources: str, wanted: str) -> None:
    assert qos_class(pod(container(f"resources: {resources}"))) == wanted


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param("{}", "spec.containers: Required value", id="no container"),
        pytest.param(
            "{containers: [{name: c, image: x}, {name: c, image: x}]}",
            'spec.containers[1].name: Duplicate value: "c"',
            id="same name",
        ),
        pytest.param(
            container("volumeMounts: [{name: v, mountPath: /v}]"),
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
            id="unknown volume",
        ),
        pytest.param(
            container("resources: {requests: {cpu: '2'}, limits: {cpu: '1'}}"),
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
            id="request over limit",
        ),
        pytest.param(
            container("resources: {requests: {example.com/gpu: 500m}, limits: {example.com/gpu: 500m}}"),
            'spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer',
            id="part of a device",
        ),
        pytest.param(
            container("env: [{name: A, valueFrom: {}}]"),
            "must specify one of: `fieldRef`",
            id="env from nowhere",
        ),
        pytest.param(
            container("env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.x}}}]"),
            'spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.x"',
            id="env from no field",
        ),
        pytest.param(
            container("livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}"),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            id="two handlers",
        ),
        pytest.param(
            container("livenessProbe: {successThreshold: 2, exec: {command: [a]}}"),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            id="liveness threshold",
        ),
        pytest.param(
            "{hostNetwork: true, containers: [{name: c, image: x, ports: [{containerPort: 80, hostPort: 81}]}]}",
            "containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true",
            id="host network ports",
        ),
        pytest.param(
            "{containers: [{name: a, image: x, ports: [{containerPort: 80, hostPort: 80}]},"
            " {name: b, image: x, ports: [{containerPort: 81, hostPort: 80}]}]}",
            'spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"',
            id="same host port",
        ),
        pytest.param(
            "{initContainers: [{name: i, image: x, livenessProbe: {exec: {command: [a]}}}],"
            " containers: [{name: c, image: x}]}",
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without"
            " restartPolicy=Always",
            id="probe of an init container",
        ),
        pytest.param(
            "{volumes: [{name: v}, {name: v}], containers: [{name: c, image: x}]}",
            'spec.volumes[1].name: Duplicate value: "v"',
            id="same volume",
        ),
        pytest.param(
            "{volumes: [{name: v, emptyDir: {}, secret: {secretName: s}}], containers: [{name: c, image: x}]}",
            "may not specify more than 1 volume type",
            id="two sources",
        ),
        pytest.param(
            "{volumes: [{name: v, hostPath: {path: /a/../b}}], containers: [{name: c, image: x}]}",
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            id="path upwards",
        ),
        pytest.param(
            "{volumes: [{name: v, configMap: {name: m, items: [{key: k, path: ../x}]}}],"
            " containers: [{name: c, image: x}]}",
            "must not contain '..'",
            id="item upwards",
        ),
        pytest.param(
            "{tolerations: [{key: a, effect: NoSchedule, tolerationSeconds: 1}], containers: [{name: c, image: x}]}",
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
            id="seconds without NoExecute",
        ),
        pytest.param(
            "{dnsPolicy: None, containers: [{name: c, image: x}]}",
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            id="no DNS at all",
        ),
        pytest.param(
            "{nodeName: n, schedulingGates: [{name: g}], containers: [{name: c, image: x}]}",
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
            id="gates and a node",
        ),
        pytest.param(
            "{ephemeralContainers: [{name: e, image: x}], containers: [{name: c, image: x}]}",
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
            id="ephemeral at once",
        ),
        pytest.param(
            "{affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}}]}},"
            " containers: [{name: c, image: x}]}",
            "requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value",
            id="affinity without topology",
        ),
    ],
)
def test_bad_pods_are_told_what_is_wrong(spec: str, text: str) -> None:
    assert any(text in fault for fault in faults(spec)), faults(spec)


def test_good_pod_has_no_fault() -> None:
    text = (
        "{volumes: [{name: v, emptyDir: {}}], tolerations: [{operator: Exists}], nodeSelector: {a: b},"
        " initContainers: [{name: s, image: x, restartPolicy: Always, startupProbe: {tcpSocket: {port: 80}}}],"
        " containers: [{name: c, image: x, volumeMounts: [{name: v, mountPath: /v}], env: [{name: N, valueFrom:"
        " {fieldRef: {fieldPath: \"metadata.labels['a']\"}}}], readinessProbe: {httpGet: {port: http}},"
        " ports: [{name: http, containerPort: 80}]}]}"
    )
    assert faults(text) == []


def changed(change: Any, old: Any = None) -> list[str]:
    before = old if old is not None else pod("{activeDeadlineSeconds: 10, containers: [{name: c, image: x}]}")
    after: Any = Pod()
    after.CopyFrom(before)
    change(after)
    return [str(error) for error in strategy().validate_update(context(), after, before)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param(lambda p: setattr(p.spec.containers[0], "image", "y"), "", id="image"),
        pytest.param(lambda p: setattr(p.spec, "activeDeadlineSeconds", 5), "", id="deadline nearer"),
        pytest.param(lambda p: p.spec.tolerations.add(operator="Exists"), "", id="one toleration more"),
        pytest.param(lambda p: p.metadata.labels.update({"a": "b"}), "", id="labels"),
        pytest.param(
            lambda p: setattr(p.spec, "activeDeadlineSeconds", 20), "less than or equal to previous", id="later"
        ),
        pytest.param(
            lambda p: p.spec.ClearField("activeDeadlineSeconds"), "must not update from a positive", id="none"
        ),
        pytest.param(
            lambda p: p.spec.containers.add(name="d", image="x"), "may not add or remove containers", id="more"
        ),
        pytest.param(
            lambda p: setattr(p.spec, "nodeName", "n"), "pod updates may not change fields other than", id="node"
        ),
        pytest.param(
            lambda p: p.spec.containers[0].command.append("x"), "pod updates may not change fields other", id="command"
        ),
    ],
)
def test_little_of_a_pod_may_change(change: Any, text: str) -> None:
    errors = changed(change)
    assert (errors == []) if not text else any(text in error for error in errors), errors


def test_tolerations_stay() -> None:
    old = pod("{tolerations: [{key: a, operator: Exists}], containers: [{name: c, image: x}]}")
    assert any(
        "existing toleration can not be modified" in e for e in changed(lambda p: p.spec.ClearField("tolerations"), old)
    )


def test_status_update_leaves_class_and_owners() -> None:
    old = pod()
    strategy().prepare_for_create(context(), old)
    new: Any = Pod()
    new.CopyFrom(old)
    new.spec.nodeName = "elsewhere"
    new.status.phase, new.status.qosClass = "Running", "Guaranteed"
    new.metadata.ownerReferences.add(name="thief")
    strategy().prepare_for_status_update(context("status"), new, old)
    assert (new.status.phase, new.status.qosClass, new.spec.nodeName) == ("Running", "BestEffort", "")
    assert not new.metadata.ownerReferences


@pytest.mark.parametrize(
    ("spec", "phase", "requested", "wanted"),
    [
        pytest.param("{nodeName: n}", "Running", None, 30, id="its own period"),
        pytest.param("{nodeName: n, terminationGracePeriodSeconds: 5}", "Running", None, 5, id="a period of its own"),
        pytest.param("{nodeName: n}", "Running", 2, 2, id="the caller's period"),
        pytest.param("{nodeName: n}", "Running", 0, 0, id="at once"),
        pytest.param("{}", "Pending", None, 0, id="on no node"),
        pytest.param("{nodeName: n}", "Succeeded", None, 0, id="ended"),
        pytest.param("{nodeName: n}", "Failed", 10, 0, id="failed"),
    ],
)
def test_A34_grace_period(spec: str, phase: str, requested: int | None, wanted: int) -> None:
    obj = pod(spec)
    obj.status.phase = phase
    assert strategy().grace_period_s(context(), obj, requested) == wanted


def test_ephemeral_containers_come_by_their_subresource_only() -> None:
    old = pod()
    new: Any = Pod()
    new.CopyFrom(old)
    added = new.spec.ephemeralContainers.add()
    added.ephemeralContainerCommon.name, added.ephemeralContainerCommon.image = "debug", "busybox"
    new.spec.nodeName = "sneaked"
    strategy().prepare_for_subresource_update(context("ephemeralcontainers"), new, old)
    assert new.spec.nodeName == ""
    assert strategy().validate_subresource_update(context("ephemeralcontainers"), new, old) == []
    gone: Any = Pod()
    gone.CopyFrom(old)
    errors = strategy().validate_subresource_update(context("ephemeralcontainers"), gone, new)
    assert 'existing ephemeral containers "debug" may not be removed' in str(errors[0])


def test_A22_selectable_fields_of_a_pod() -> None:
    obj = pod("{nodeName: n, containers: [{name: c, image: x}]}")
    obj.status.phase = "Running"
    fields = strategy().selectable_fields(obj)
    assert (fields["spec.nodeName"], fields["status.phase"], fields["metadata.name"]) == ("n", "Running", "p")
    assert fields["spec.restartPolicy"] == "Always"
