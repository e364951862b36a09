"""Classes that pods and ingresses are given or name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.admission.attributes import write
from tests.unit.apiserver.fake_objects import FakeObjects, read
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.networking.v1.networking_pb2 import Ingress, IngressClass
from tiphys.api.node.v1.node_pb2 import RuntimeClass as Class
from tiphys_apimachinery.errors import Forbidden
from tiphys_apimachinery.pod_resources import read_amounts
from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.admission.plugins.default_ingress_class import DEFAULT, LEGACY, DefaultIngressClass
from tiphys_apiserver.admission.plugins.runtime_class import RuntimeClass

KATA = (
    "{metadata: {name: kata}, handler: kata, overhead: {podFixed: {cpu: 250m}},"
    " scheduling: {nodeSelector: {vm: 'yes'}, tolerations: [{key: vm, operator: Exists}]}}"
)


def pod(spec: str) -> Any:
    obj: Any = read(Pod, f"spec: {spec}")
    obj.metadata.name, obj.metadata.namespace = "p", "web"
    return obj


async def admitted(spec: str) -> Any:
    obj = pod(spec)
    await RuntimeClass(FakeObjects(read(Class, KATA))).admit(write(Operation.CREATE, obj))
    return obj.spec


async def test_A45_a_pod_gets_what_its_runtime_class_costs_and_where_it_runs() -> None:
    spec = await admitted("{runtimeClassName: kata, nodeSelector: {disk: ssd}}")
    assert {name: str(amount) for name, amount in read_amounts(spec.overhead).items()} == {"cpu": "250m"}
    assert dict(spec.nodeSelector) == {"disk": "ssd", "vm": "yes"}
    assert [toleration.key for toleration in spec.tolerations] == ["vm"]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param("{runtimeClassName: gvisor}", 'pod rejected: RuntimeClass "gvisor" not found', id="unknown"),
        pytest.param(
            "{runtimeClassName: kata, overhead: {cpu: 1m}}",
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead", id="other overhead",
        ),
        pytest.param(
            "{overhead: {cpu: 1m}}",
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead", id="overhead alone",
        ),
        pytest.param(
            "{runtimeClassName: kata, nodeSelector: {vm: 'no'}}",
            "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no", id="selector",
        ),
    ],
)  # fmt: skip
async def test_A45_what_contradicts_a_runtime_class_is_refused(spec: str, text: str) -> None:
    with pytest.raises(Forbidden) as refused:
        await admitted(spec)
    assert str(refused.value) == f'pods "p" is forbidden: {text}'


def ingress_class(name: str, seconds: int, *, is_default: bool) -> Any:
    made: Any = IngressClass()
    made.metadata.name = name
    made.metadata.creationTimestamp.seconds = seconds
    if is_default:
        made.metadata.annotations[DEFAULT] = "true"
    return made


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        pytest.param("{}", "newer", id="open"),
        pytest.param("{spec: {ingressClassName: own}}", "own", id="named"),
        pytest.param(f"{{metadata: {{annotations: {{{LEGACY}: nginx}}}}}}", "", id="named as of old"),
    ],
)
async def test_A45_an_ingress_gets_the_newest_default_class(text: str, chosen: str) -> None:
    obj: Any = read(Ingress, text)
    obj.metadata.name, obj.metadata.namespace = "i", "web"
    objects = FakeObjects(
        ingress_class("a", 9, is_default=False),
        ingress_class("older", 1, is_default=True),
        ingress_class("newer", 2, is_default=True),
    )
    plugin = DefaultIngressClass(objects)
    attributes = write(Operation.CREATE, obj)
    assert plugin.handles(attributes)
    await plugin.admit(attributes)
    assert obj.spec.ingressClassName == chosen
