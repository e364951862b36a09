"""A batch of bindings: the quick road takes what is plain, and each of the rest is told why not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.scheduler.objects import pod_message
from tiphys.api.admissionregistration.v1.admissionregistration_pb2 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
)
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_client.client import Bind, Client


def _plain(_pod: Pod) -> None:
    return None


def _gated(pod: Pod) -> None:
    pod.spec.schedulingGates.add(name="example.com/wait")


def _bound(pod: Pod) -> None:
    pod.spec.nodeName = "other"


async def _deleting(client: Client) -> None:
    await client.patch(Pod, "odd", "default", {"metadata": {"finalizers": ["example.com/stay"]}})
    await client.delete(Pod, "odd", "default", grace_period_s=0)


async def _gone(client: Client) -> None:
    await client.delete(Pod, "odd", "default", grace_period_s=0)


async def _left(_client: Client) -> None:
    return None


@pytest.mark.parametrize(
    ("made", "then", "bind", "code", "why"),
    [
        pytest.param(_gated, _left, {}, 409, "non-empty .spec.schedulingGates", id="gated"),
        pytest.param(_bound, _left, {}, 409, "already assigned to node", id="bound already"),
        pytest.param(_plain, _deleting, {}, 409, "is being deleted", id="going"),
        pytest.param(_plain, _gone, {}, 404, "not found", id="gone"),
        pytest.param(_plain, _left, {"uid": "another"}, 409, "UID in precondition", id="another of its name"),
        pytest.param(_plain, _left, {"node": ""}, 422, "target.name", id="to no node"),
        pytest.param(_plain, _left, {"namespace": "absent"}, 404, "absent", id="in a namespace that is not there"),
    ],
)
async def test_pod_that_cannot_be_bound_is_told_why_and_its_batch_is_bound(
    client: Client,
    made: Callable[[Pod], None],
    then: Callable[[Client], Awaitable[None]],
    bind: dict[str, str],
    code: int,
    why: str,
) -> None:
    odd = pod_message("odd")
    made(odd)
    for pod in (pod_message("a"), odd, pod_message("b")):
        pod.metadata.ClearField("uid")
        await client.create(pod)
    await then(client)
    wanted = Bind(bind.get("namespace", "default"), "odd", bind.get("node", "n1"), bind.get("uid", ""))
    first, refused, last = await client.bind([Bind("default", "a", "n1"), wanted, Bind("default", "b", "n2")])
    assert (first, last) == (None, None)
    assert isinstance(refused, APIError)
    assert refused.code == code
    assert why in str(refused)
    assert [(await client.get(Pod, name, "default")).spec.nodeName for name in "ab"] == ["n1", "n2"]


async def test_pod_that_is_twice_in_a_batch_is_bound_once(client: Client) -> None:
    await client.create(pod_message("a"))
    results = await client.bind([Bind("default", "a", "n1"), Bind("default", "a", "n2")])
    assert [None if result is None else result.code for result in results] == [None, 409]
    assert (await client.get(Pod, "a", "default")).spec.nodeName == "n1"


async def test_annotations_of_a_binding_come_to_the_pod(client: Client) -> None:
    await client.create(pod_message("a"))
    assert await client.bind([Bind("default", "a", "n1", annotations={"example.com/zone": "z1"})]) == [None]
    found = await client.get(Pod, "a", "default")
    assert found.metadata.annotations["example.com/zone"] == "z1"
    assert [(one.type, one.status) for one in found.status.conditions] == [("PodScheduled", "True")]


async def test_policy_about_bindings_sees_each_of_a_batch(client: Client) -> None:
    policy: Any = ValidatingAdmissionPolicy()
    policy.metadata.name = "no-n2"
    rule = policy.spec.matchConstraints.resourceRules.add()
    rule.ruleWithOperations.operations.append("CREATE")
    rule.ruleWithOperations.rule.apiGroups.append("")
    rule.ruleWithOperations.rule.apiVersions.append("v1")
    rule.ruleWithOperations.rule.resources.append("pods/binding")
    policy.spec.validations.add(Expression="object.target.name != 'n2'", message="not on n2")
    await client.create(policy)
    bound: Any = ValidatingAdmissionPolicyBinding()
    bound.metadata.name, bound.spec.policyName = "no-n2", "no-n2"
    bound.spec.validationActions.append("Deny")
    await client.create(bound)
    for name in "ab":
        await client.create(pod_message(name))
    results = await client.bind([Bind("default", "a", "n1"), Bind("default", "b", "n2")])
    assert results[0] is None
    assert results[1] is not None
    assert "not on n2" in str(results[1])


async def test_batch_of_plain_bindings_or_events_is_one_write(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    whole = MemoryStore.write_each

    async def counted(store: MemoryStore, writes: Any) -> Any:
        batches.append(len(writes))
        return await whole(store, writes)

    names = [f"p{number}" for number in range(40)]
    for name in names:
        await client.create(pod_message(name))
    monkeypatch.setattr(MemoryStore, "write_each", counted)
    assert await client.bind([Bind("default", name, "n1") for name in names]) == [None] * 40
    events = [Event(type="Normal", reason="Scheduled") for _ in names]
    for event, name in zip(events, names, strict=True):
        event.metadata.name, event.metadata.namespace = f"{name}.1", "default"
        event.involvedObject.namespace, event.involvedObject.name = "default", name
    stored = await client.batch_create(events)
    assert all(isinstance(event, Event) and event.metadata.resourceVersion for event in stored)
    assert batches == [40, 40]
