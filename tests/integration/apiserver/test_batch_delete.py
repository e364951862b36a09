"""A batch of deletes: whichever road each takes, it is answered and leaves its object as the single call does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.scheduler.objects import pod_message
from tiphys.api.admissionregistration.v1.admissionregistration_pb2 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
)
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_client.client import Client, Propagation


@dataclass(frozen=True, slots=True)
class Asked:
    """One delete."""

    grace_period_s: int | None = None
    propagation: Propagation | None = None
    uid: str = ""


def _on_node(pod: Pod) -> None:
    pod.spec.nodeName, pod.spec.terminationGracePeriodSeconds = "n1", 60


def _held_on_node(pod: Pod) -> None:
    _on_node(pod)
    _held(pod)


def _held(pod: Pod) -> None:
    pod.metadata.finalizers.append("example.com/stay")


def _waiting(_pod: Pod) -> None:
    return None


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        pytest.param(_on_node, [Asked()], id="its own grace"),
        pytest.param(_on_node, [Asked(grace_period_s=5)], id="a grace asked for"),
        pytest.param(_on_node, [Asked(grace_period_s=0)], id="at once"),
        pytest.param(_on_node, [Asked(), Asked(grace_period_s=5)], id="sooner the second time"),
        pytest.param(_on_node, [Asked(grace_period_s=5), Asked()], id="later the second time"),
        pytest.param(_on_node, [Asked(), Asked()], id="twice alike"),
        pytest.param(_on_node, [Asked(), Asked(grace_period_s=0)], id="first with grace, then at once"),
        pytest.param(_on_node, [Asked(uid="another")], id="another of its name"),
        pytest.param(_on_node, [Asked(propagation="Foreground")], id="dependents first"),
        pytest.param(_on_node, [Asked(propagation="Orphan")], id="dependents left behind"),
        pytest.param(_held_on_node, [Asked(grace_period_s=0)], id="held, at once"),
        pytest.param(_held_on_node, [Asked()], id="held, with grace"),
        pytest.param(_held, [Asked()], id="held, on no node"),
        pytest.param(_held, [Asked(propagation="Orphan"), Asked(propagation="Background")], id="orphaned, then not"),
        pytest.param(_waiting, [Asked()], id="on no node"),
        pytest.param(_waiting, [Asked(), Asked()], id="gone already"),
    ],
)
async def test_batch_and_single_call_answer_alike_and_leave_the_same(
    client: Client, made: Callable[[Pod], None], asked: list[Asked]
) -> None:
    for name in ("one", "two", "three"):
        pod = pod_message(name)
        pod.metadata.ClearField("uid")
        made(pod)
        await client.create(pod)
    answers: dict[str, list[str]] = {"one": [], "two": [], "three": []}
    for each in asked:
        options: dict[str, Any] = {"grace_period_s": each.grace_period_s, "propagation": each.propagation}
        answers["one"].append(await _single(client, "one", each.uid, options))
        both = await client.batch_delete(Pod, "default", [("two", each.uid), ("three", each.uid)], **options)
        for name, error in zip(("two", "three"), both, strict=True):
            answers[name].append(_told(error, name))
    assert answers["two"] == answers["three"] == answers["one"]
    left = {pod.metadata.name: pod for pod in (await client.list(Pod, "default")).items}
    assert _state(left.get("two")) == _state(left.get("three")) == _state(left.get("one"))


async def _single(client: Client, name: str, uid: str, options: dict[str, Any]) -> str:
    try:
        await client.delete(Pod, name, "default", preconditions_uid=uid or None, **options)
    except APIError as err:
        return _told(err, name)
    return ""


def _told(error: APIError | None, name: str) -> str:
    """What the answer says, without what differs between pods."""
    if error is None:
        return ""
    text = str(error).partition("UID in object meta")[0].replace(f'"{name}"', "NAME")
    return f"{error.code} {error.to_status().reason} {text}"


def _state(pod: Pod | None) -> tuple[Any, ...] | None:
    """What a delete changes of a pod; None where it is gone."""
    if pod is None:
        return None
    metadata = pod.metadata
    return (
        metadata.HasField("deletionTimestamp"),
        metadata.HasField("deletionGracePeriodSeconds") and metadata.deletionGracePeriodSeconds,
        list(metadata.finalizers),
        metadata.generation,
    )


async def test_delete_that_cannot_be_done_leaves_the_rest_of_its_batch_alone(client: Client) -> None:
    for name in "ab":
        await client.create(pod_message(name, nodeName="n1"))
    wanted = [("a", ""), ("absent", ""), ("a", "another"), ("b", "")]
    first, absent, other, last = await client.batch_delete(Pod, "default", wanted)
    assert (first, last) == (None, None)
    assert [error.code for error in (absent, other) if error is not None] == [404, 409]
    left = (await client.list(Pod, "default")).items
    assert [pod.metadata.HasField("deletionTimestamp") for pod in left] == [True, True]


async def test_graceful_deletes_of_a_batch_are_one_write_and_repeated_ones_none(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    whole = MemoryStore.write_each

    async def counted(store: MemoryStore, writes: Any) -> Any:
        batches.append(len(writes))
        return await whole(store, writes)

    wanted = [(f"p{number}", "") for number in range(40)]
    for name, _ in wanted:
        await client.create(pod_message(name, nodeName="n1"))
    monkeypatch.setattr(MemoryStore, "write_each", counted)
    for _ in range(2):
        assert await client.batch_delete(Pod, "default", wanted) == [None] * 40
    assert batches == [40]


async def test_policy_about_deletes_sees_each_of_a_batch(client: Client) -> None:
    policy: Any = ValidatingAdmissionPolicy()
    policy.metadata.name = "keep"
    rule = policy.spec.matchConstraints.resourceRules.add()
    rule.ruleWithOperations.operations.append("DELETE")
    rule.ruleWithOperations.rule.apiGroups.append("")
    rule.ruleWithOperations.rule.apiVersions.append("v1")
    rule.ruleWithOperations.rule.resources.append("pods")
    policy.spec.validations.add(Expression="oldObject.metadata.name != 'b'", message="b is dear")
    await client.create(policy)
    bound: Any = ValidatingAdmissionPolicyBinding()
    bound.metadata.name, bound.spec.policyName = "keep", "keep"
    bound.spec.validationActions.append("Deny")
    await client.create(bound)
    for name in "ab":
        await client.create(pod_message(name, nodeName="n1"))
    results = await client.batch_delete(Pod, "default", [("a", ""), ("b", "")])
    assert results[0] is None
    assert "b is dear" in str(results[1])
    left = {pod.metadata.name: pod.metadata for pod in (await client.list(Pod, "default")).items}
    assert [left[name].HasField("deletionTimestamp") for name in "ab"] == [True, False]


async def test_namespace_that_may_not_go_stays_though_a_batch_asks(client: Client) -> None:
    made = Namespace()
    made.metadata.name = "fleeting"
    await client.create(made)
    refused, gone = await client.batch_delete(Namespace, "", [("default", ""), ("fleeting", "")])
    assert refused is not None
    assert refused.code == 403
    assert gone is None
    assert not (await client.get(Namespace, "default")).metadata.HasField("deletionTimestamp")
