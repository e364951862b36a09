"""Rules of claims, templates and classes, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from tests.unit.apiserver.fake_objects import FakeObjects, read
from tests.unit.apiserver.registry.bench import context, create_faults, made, strategy_of, update_faults
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.resource.v1.resource_pb2 import DeviceClass, ResourceClaim, ResourceClaimTemplate

S = "settings"
GPU = "{name: gpu, exactly: {deviceClassName: gpu}}"


def claim(*requests: str, rest: str = "") -> str:
    return f"{{metadata: {{name: x}}, spec: {{devices: {{requests: [{', '.join(requests or (GPU,))}]{rest}}}}}}}"


def exactly(text: str) -> str:
    return claim(f"{{name: gpu, exactly: {{deviceClassName: gpu, {text}}}}}")


ONE_OF = "exactly one of `exactly` or `firstAvailable` is required"
EITHER = "{name: e, firstAvailable: [{name: a, deviceClassName: c}, {name: b, deviceClassName: d}]}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(claim(), "", id="one device"),
        pytest.param(claim(EITHER), "", id="one of two"),
        pytest.param(claim(GPU, GPU), "spec.devices.requests[1].name: Duplicate value", id="name twice"),
        pytest.param(claim("{name: gpu}"), f"spec.devices.requests[0]: Required value: {ONE_OF}", id="no way"),
        pytest.param(claim(GPU[:-1] + ", " + EITHER[10:]), ONE_OF, id="both ways"),
        pytest.param(
            exactly("allocationMode: All, count: 2"), "must not be specified when allocationMode is", id="all 2"
        ),
        pytest.param(exactly("allocationMode: Some"), "spec.devices.requests[0].exactly.allocationMode", id="mode"),
        pytest.param(exactly("selectors: [{cel: {expression: 'device.driver =='}}]"), "compilation failed", id="cel"),
        pytest.param(exactly("selectors: [{cel: {expression: 'object.x'}}]"), "compilation failed", id="cel variable"),
        pytest.param(exactly("selectors: [{}]"), "exactly.selectors[0].cel: Required value", id="no condition"),
        pytest.param(exactly("adminAccess: true"), "admin access to devices requires the", id="admin"),
        pytest.param(
            exactly("tolerations: [{operator: Exists, value: a}]"),
            "must be empty for operator `Exists`",
            id="toleration",
        ),
        pytest.param(claim(rest=", constraints: [{matchAttribute: a.example/numa}]"), "", id="constraint"),
        pytest.param(
            claim(rest=", constraints: [{requests: [nic], matchAttribute: a.example/numa}]"),
            "must be the name of a request in the claim",
            id="constraint of nobody",
        ),
        pytest.param(claim(rest=", constraints: [{matchAttribute: numa}]"), "a fully qualified name", id="no domain"),
        pytest.param(claim(rest=", constraints: [{}]"), "exactly one of: matchAttribute", id="no attribute"),
        pytest.param(
            claim(EITHER, rest=", config: [{requests: [e/a], opaque: {driver: d, parameters: {}}}]"), "", id="b"
        ),
        pytest.param(claim(rest=", config: [{}]"), "exactly one of: opaque", id="no settings"),
        pytest.param(
            claim(rest=", config: [{opaque: {driver: d, parameters: [1]}}]"), "must be a valid JSON object", id="list"
        ),
    ],
)
def test_C28_claims_and_templates_say_what_is_wrong(text: str, fault: str) -> None:
    template = text.replace("spec: {devices", "spec: {spec: {devices", 1) + "}"
    for cls, written in ((ResourceClaim, text), (ResourceClaimTemplate, template)):
        found = create_faults(cls, written)
        if cls is ResourceClaimTemplate:
            fault = fault.replace("spec.devices", "spec.spec.devices")
        assert bool(found) == bool(fault), found
        assert fault in "\n".join(found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("selectors: [{cel: {expression: \"device.driver == 'd'\"}}]", "", id="condition"),
        pytest.param("selectors: [{cel: {expression: '1 +'}}]", "spec.selectors[0].cel.expression", id="no condition"),
        pytest.param("config: [{}]", "spec.config[0]", id="no settings"),
    ],
)
def test_C28_classes_say_what_is_wrong(text: str, fault: str) -> None:
    found = create_faults(DeviceClass, f"{{metadata: {{name: gpu}}, spec: {{{text}}}}}")
    assert bool(found) == bool(fault), found
    assert fault in "\n".join(found)


@pytest.mark.parametrize("cls", [ResourceClaim, ResourceClaimTemplate])
def test_C28_what_is_claimed_is_for_good(cls: type[Message]) -> None:
    before, after = claim(), exactly("count: 2")
    if cls is ResourceClaimTemplate:
        before, after = (text.replace("{devices", "{spec: {devices", 1) + "}" for text in (before, after))
    assert "field is immutable" in "\n".join(update_faults(cls, before, after))
    assert update_faults(cls, before, before) == []


def test_C28_a_request_is_for_one_device_unless_it_says_more() -> None:
    stored = made(ResourceClaim, claim(GPU, EITHER, "{name: all, exactly: {deviceClassName: c, allocationMode: All}}"))
    gpu, either, everything = stored.spec.devices.requests
    assert (gpu.exactly.allocationMode, gpu.exactly.count) == ("ExactCount", 1)
    assert [choice.count for choice in either.firstAvailable] == [1, 1]
    assert everything.exactly.count == 0


def test_C28_admin_access_takes_a_label_of_the_namespace() -> None:
    space = read(Namespace, "{metadata: {name: web, labels: {resource.kubernetes.io/admin-access: 'true'}}}")
    strategy: Any = strategy_of(ResourceClaim, FakeObjects(space))
    assert strategy.validate(context(), made(ResourceClaim, exactly("adminAccess: true"))) == []


ALLOCATION = "allocation: {devices: {results: [{request: gpu, driver: d, pool: p, device: x}]}}"
USER = "reservedFor: [{resource: pods, name: a, uid: u1}]"


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        pytest.param("", f"{ALLOCATION}, {USER}", "", id="given and reserved"),
        pytest.param(f"{ALLOCATION}, {USER}", "", "", id="given back"),
        pytest.param(ALLOCATION, ALLOCATION.replace("device: x", "device: y"), "field is immutable", id="another"),
        pytest.param("", USER, "may not be specified when `allocated` is not set", id="reserved without devices"),
        pytest.param(
            "", ALLOCATION.replace("request: gpu", "request: nic"), "must be the name of", id="no such request"
        ),
        pytest.param("", ALLOCATION.replace("pool: p, ", ""), "devices.results[0].pool: Required value", id="no pool"),
        pytest.param(
            "",
            f"{ALLOCATION}, reservedFor: [{{resource: pods, name: a, uid: u}}, {{resource: pods, name: b, uid: u}}]",
            "status.reservedFor[1].uid: Duplicate value",
            id="twice",
        ),
        pytest.param(
            ALLOCATION,
            f"{ALLOCATION}, devices: [{{driver: d, pool: p, device: other}}]",
            "must be an allocated device in the claim",
            id="status of another device",
        ),
    ],
)
def test_C28_the_status_says_who_has_what(before: str, after: str, fault: str) -> None:
    def stored(status: str) -> Any:
        return read(ResourceClaim, claim()[:-1] + f", status: {{{status}}}}}")

    strategy: Any = strategy_of(ResourceClaim)
    found = [str(error) for error in strategy.validate_status_update(context("status"), stored(after), stored(before))]
    assert bool(found) == bool(fault), found
    assert fault in "\n".join(found)


def test_C28_a_claim_that_ends_is_given_nothing_more() -> None:
    old: Any = read(ResourceClaim, claim())
    old.metadata.deletionTimestamp.seconds = 1
    new: Any = read(ResourceClaim, claim()[:-1] + f", status: {{{ALLOCATION}, {USER}}}}}")
    new.metadata.deletionTimestamp.seconds = 1
    found = [str(e) for e in strategy_of(ResourceClaim).validate_status_update(context("status"), new, old)]
    assert any("`deletionTimestamp` is set" in fault and "status.allocation" in fault for fault in found)
    assert any("no new reservations" in fault for fault in found)


def pod(claims: str, container: str = "") -> str:
    resources = f", resources: {{claims: [{container}]}}" if container else ""
    containers = f"containers: [{{name: c, image: i{resources}}}]"
    return f"{{metadata: {{name: p}}, spec: {{resourceClaims: [{claims}], {containers}}}}}"


BOTH = "{name: a, resourceClaimName: x, resourceClaimTemplateName: y}"
A = "{name: a, resourceClaimName: x}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(pod(A, "{name: a}"), "", id="whole claim"),
        pytest.param(pod(A, "{name: a, request: r}, {name: a, request: s}"), "", id="two of its requests"),
        pytest.param(pod(f"{A}, {A}"), "spec.resourceClaims[1].name: Duplicate value", id="twice"),
        pytest.param(pod("{name: a}"), "must specify one of: `resourceClaimName`", id="neither"),
        pytest.param(pod(BOTH), "at most one of `resourceClaimName`", id="both"),
        pytest.param(pod(A, "{name: b}"), "resources.claims[0]: Not found", id="unknown"),
        pytest.param(pod(A, "{name: a}, {name: a}"), "resources.claims[1]: Duplicate value", id="container twice"),
        pytest.param(pod(A, "{name: a}, {name: a, request: r}"), "Duplicate value", id="whole and part"),
        pytest.param(pod(A, "{name: a, request: r}, {name: a}"), "Duplicate value", id="part and whole"),
    ],
)
def test_C28_pods_name_claims_that_they_have(text: str, fault: str) -> None:
    found = create_faults(Pod, text)
    assert bool(found) == bool(fault), found
    assert fault in "\n".join(found)


def test_C28_a_pods_status_names_its_own_claims() -> None:
    strategy: Any = strategy_of(Pod)
    old = made(Pod, pod("{name: a, resourceClaimTemplateName: t}"))
    new: Any = Pod()
    new.CopyFrom(old)
    new.status.resourceClaimStatuses.add(name="a", resourceClaimName="p-a-xyz")
    assert strategy.validate_status_update(context("status"), new, old) == []
    new.status.resourceClaimStatuses.add(name="b", resourceClaimName="p-b-xyz")
    found = [str(error) for error in strategy.validate_status_update(context("status"), new, old)]
    assert any("must match the name of an entry in `spec.resourceClaims`" in fault for fault in found)
