"""What the strategies do to objects besides judging them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import FakeObjects, read
from tests.unit.apiserver.registry.bench import context, made, strategy_of
from tiphys.api.apps.v1.apps_pb2 import DaemonSet, Deployment
from tiphys.api.batch.v1.batch_pb2 import Job
from tiphys.api.certificates.v1.certificates_pb2 import CertificateSigningRequest
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys.api.networking.v1.networking_pb2 import NetworkPolicy
from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass
from tiphys_apimachinery.errors import Forbidden
from tiphys_apiserver.authentication.interface import UserInfo

POD = "{metadata: {labels: {a: b}}, spec: {restartPolicy: %s, containers: [{name: c, image: i}]}}"


def test_A26_namespace_is_active_labelled_and_held_by_its_contents() -> None:
    obj = made(Namespace, "metadata: {name: web}")
    assert obj.status.phase == "Active"
    assert list(obj.spec.finalizers) == ["kubernetes"]
    assert obj.metadata.labels["kubernetes.io/metadata.name"] == "web"
    strategy = strategy_of(Namespace)
    assert strategy.holds_object(obj)
    strategy.prepare_for_delete(context(), obj)
    assert obj.status.phase == "Terminating"
    del obj.spec.finalizers[:]
    assert not strategy.holds_object(obj)


def test_finalizers_of_a_namespace_go_only_by_finalize() -> None:
    old = made(Namespace, "metadata: {name: web}")
    new: Any = read(Namespace, "metadata: {name: web}")
    strategy = strategy_of(Namespace)
    strategy.prepare_for_update(context(), new, old)
    assert list(new.spec.finalizers) == ["kubernetes"]
    new = read(Namespace, "metadata: {name: web}")
    strategy.prepare_for_subresource_update(context("finalize"), new, old)
    assert list(new.spec.finalizers) == []


def test_rolling_update_takes_a_quarter_by_default() -> None:
    rolling = made(
        Deployment, f"{{metadata: {{name: x}}, spec: {{template: {POD % 'Always'}}}}}"
    ).spec.strategy.rollingUpdate
    assert (rolling.maxSurge.strVal, rolling.maxUnavailable.strVal) == ("25%", "25%")


def test_daemon_set_counts_generations_of_its_template() -> None:
    text = f"{{metadata: {{name: x}}, spec: {{template: {POD % 'Always'}}}}}"
    key = "deprecated.daemonset.template.generation"
    old, strategy = made(DaemonSet, text), strategy_of(DaemonSet)
    assert old.metadata.annotations[key] == "1"
    new = made(DaemonSet, text.replace("image: i", "image: j"))
    strategy.prepare_for_update(context(), new, old)
    assert new.metadata.annotations[key] == "2"


def test_B16_job_selects_its_pods_by_its_uid() -> None:
    job = made(Job, f"{{metadata: {{name: x, uid: u-1}}, spec: {{template: {POD % 'Never'}}}}}")
    assert dict(job.spec.selector.matchLabels) == {"batch.kubernetes.io/controller-uid": "u-1"}
    labels = dict(job.spec.template.metadata.labels)
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == "x"
    assert labels["controller-uid"] == "u-1"
    assert (job.spec.completions, job.spec.parallelism, job.spec.backoffLimit) == (1, 1, 6)


def test_work_queue_job_has_no_completions() -> None:
    job = made(Job, f"{{metadata: {{name: x}}, spec: {{parallelism: 3, template: {POD % 'Never'}}}}}")
    assert not job.spec.HasField("completions")


def test_H5_string_data_becomes_data_and_is_not_kept() -> None:
    secret = made(Secret, "{metadata: {name: x}, data: {a: b2xk}, stringData: {a: new, b: text}}")
    assert dict(secret.data) == {"a": b"new", "b": b"text"}
    assert not secret.stringData
    assert secret.type == "Opaque"


def test_node_keeps_the_status_it_registers_with() -> None:
    node = made(Node, "{metadata: {name: n}, status: {capacity: {cpu: '4'}}}")
    assert node.status.allocatable["cpu"].string == "4"


def test_A50_events_live_an_hour() -> None:
    assert strategy_of(Event).ttl_s(Event()) == 3600


@pytest.mark.parametrize(("spec", "types"), [("{}", ["Ingress"]), ("{egress: [{}]}", ["Ingress", "Egress"])])
def test_F24_policy_is_about_what_it_has_rules_for(spec: str, types: list[str]) -> None:
    assert list(made(NetworkPolicy, f"{{metadata: {{name: x}}, spec: {spec}}}").spec.policyTypes) == types


def test_slice_counts_generations() -> None:
    text = "{metadata: {name: x}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}]}"
    old, same, other = (made(EndpointSlice, text) for _ in range(3))
    other.endpoints[0].addresses[0] = "10.0.0.2"
    strategy = strategy_of(EndpointSlice)
    for new, generation in ((same, 1), (other, 2)):
        strategy.prepare_for_update(context(), new, old)
        assert new.metadata.generation == generation


async def test_only_one_priority_class_is_the_default() -> None:
    first = read(PriorityClass, "{metadata: {name: a}, value: 1, globalDefault: true}")
    strategy = strategy_of(PriorityClass, FakeObjects(first))
    with pytest.raises(Forbidden, match="PriorityClass a is already marked as default"):
        await strategy.begin_create(context(), read(PriorityClass, "{metadata: {name: b}, globalDefault: true}"))


def test_H11_signing_request_says_who_asked_whatever_it_claims() -> None:
    obj: Any = read(
        CertificateSigningRequest, "{metadata: {name: x}, spec: {username: root, groups: [system:masters]}}"
    )
    ctx = context()
    ctx.user = UserInfo("ann", groups=("dev",))
    strategy_of(CertificateSigningRequest).prepare_for_create(ctx, obj)
    assert (obj.spec.username, list(obj.spec.groups)) == ("ann", ["dev"])


def test_H11_approval_is_written_by_its_own_door_only() -> None:
    old: Any = read(CertificateSigningRequest, "{metadata: {name: x}}")
    new: Any = read(CertificateSigningRequest, "{metadata: {name: x}}")
    new.status.conditions.add(type="Approved", status="True")
    new.status.certificate = b"pem"
    strategy = strategy_of(CertificateSigningRequest)
    strategy.prepare_for_status_update(context("status"), new, old)
    assert [condition.type for condition in new.status.conditions] == []
    new.status.conditions.add(type="Approved", status="True")
    strategy.prepare_for_subresource_update(context("approval"), new, old)
    assert [condition.type for condition in new.status.conditions] == ["Approved"]
    assert new.status.certificate == b""
    assert new.status.conditions[0].HasField("lastUpdateTime")
