"""Admission webhooks over real HTTPS: they change, refuse, warn, hang, lie, and are asked only what they asked for."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from aiohttp import web

from tests.support.apiserver import RunningServer
from tests.support.hostile import Hostile, dumps
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.apiserver.v1 import wire_pb2
from tiphys_component.tls import ClientAuth, server_ssl_context

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
Answer = Callable[[dict[str, Any]], Awaitable[Any] | Any]


@dataclass
class Hooks:
    """A server of webhooks: a path each, with what it answers and what it was asked."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One call."""
        review = json.loads(await request.read())
        self.asked.append((request.path[1:], review["request"]))
        found = self.answers[request.path[1:]](review["request"])
        if isinstance(found, Awaitable):
            found = await found
        if isinstance(found, web.StreamResponse):
            return found
        response = {"uid": review["request"]["uid"], **found}
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})


@pytest.fixture
async def hooks(server: RunningServer) -> AsyncIterator[Hooks]:
    made = Hooks()
    application = web.Application()
    application.router.add_post("/{path}", made.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    tls = server_ssl_context(server.pki.tls("server"), client_auth=ClientAuth.NONE)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def allow(**more: Any) -> Answer:
    return lambda _request: {"allowed": True, **more}


def patched(*operations: dict[str, Any]) -> Answer:
    text = base64.b64encode(json.dumps(operations).encode()).decode()
    return allow(patchType="JSONPatch", patch=text)


async def register(
    server: RunningServer, hooks: Hooks, kind: str, *webhooks: dict[str, Any], name: str = "test"
) -> None:
    """Make a configuration, and wait until it is in force."""
    ca = base64.b64encode((server.pki.folder / "ca.crt").read_bytes()).decode()
    rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    found = []
    for webhook in webhooks:
        path = webhook.pop("path")
        found.append(
            {
                "name": f"{path}.example.com",
                "clientConfig": {"url": f"https://127.0.0.1:{hooks.port}/{path}", "caBundle": ca},
                "rules": [rule],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 1,
                **webhook,
            }
        )
    body = {"metadata": {"name": name}, "webhooks": found}
    reply = await server.http("POST", f"{ADMISSION}/{kind.lower()}webhookconfigurations", body)
    assert reply.status == 201, reply.body


async def create(server: RunningServer, name: str = "a", *, query: str = "", **metadata: Any) -> Any:
    return await server.http("POST", CONFIG_MAPS + query, {"metadata": {"name": name, **metadata}, "data": {"k": "v"}})


async def test_A46_a_mutating_webhook_changes_what_is_stored(server: RunningServer, hooks: Hooks) -> None:
    hooks.answers["label"] = patched({"op": "add", "path": "/metadata/labels", "value": {"team": "x"}})
    await register(server, hooks, "Mutating", {"path": "label"})
    made = await create(server)
    assert (made.status, made.json()["metadata"]["labels"]) == (201, {"team": "x"})
    path, request = hooks.asked[0]
    assert path == "label"
    assert request["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (request["operation"], request["namespace"], request["name"], request["dryRun"]) == (
        "CREATE", "default", "a", False,
    )  # fmt: skip
    assert request["object"]["data"] == {"k": "v"}
    assert request["oldObject"] is None
    assert request["userInfo"]["username"] == "admin"
    assert request["options"]["kind"] == "CreateOptions"


async def test_A46_a_validating_webhook_refuses_with_its_words_and_code(server: RunningServer, hooks: Hooks) -> None:
    hooks.answers["no"] = lambda _request: {"allowed": False, "status": {"code": 422, "message": "too blue"}}
    await register(server, hooks, "Validating", {"path": "no"})
    refused = await create(server)
    assert refused.status == 422
    assert refused.json()["message"] == 'admission webhook "no.example.com" denied the request: too blue'
    assert (await server.http("GET", f"{CONFIG_MAPS}/a")).status == 404


async def test_A46_warnings_reach_the_caller(server: RunningServer, hooks: Hooks) -> None:
    hooks.answers["warn"] = allow(warnings=["mind the gap"])
    await register(server, hooks, "Validating", {"path": "warn"})
    assert (await create(server)).header("warning") == ['299 - "mind the gap"']


def _hang(_request: dict[str, Any]) -> Awaitable[Any]:
    return asyncio.get_running_loop().create_future()


BROKEN = [
    pytest.param(_hang, "context deadline exceeded", id="hangs"),
    pytest.param(lambda _: web.Response(text="not json"), "is not JSON", id="garbage"),
    pytest.param(lambda _: web.Response(status=500, text="oops"), "oops", id="error"),
    pytest.param(lambda _: {"uid": "another", "allowed": True}, "expected response.uid", id="lies"),
    pytest.param(
        lambda _: {"allowed": True, "patchType": "JSONPatch", "patch": "e30="}, "may not return a patch", id="patches"
    ),
]


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
@pytest.mark.parametrize(("answer", "words"), BROKEN)
async def test_A46_a_broken_webhook_follows_its_failure_policy(
    server: RunningServer, hooks: Hooks, answer: Answer, words: str, policy: str
) -> None:
    hooks.answers["broken"] = answer
    await register(server, hooks, "Validating", {"path": "broken", "failurePolicy": policy})
    reply = await create(server)
    if policy == "Ignore":
        assert reply.status == 201
        return
    assert reply.status == 500
    assert 'failed calling webhook "broken.example.com"' in reply.json()["message"]
    assert words in reply.json()["message"]


async def test_A46_a_webhook_that_is_gone_can_still_be_deleted(server: RunningServer, hooks: Hooks) -> None:
    everything = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
    await register(server, hooks, "Validating", {"path": "gone", "rules": [everything]})
    assert (await create(server)).status == 500
    gone = await server.http("DELETE", f"{ADMISSION}/validatingwebhookconfigurations/test")
    assert gone.status == 200
    assert (await create(server)).status == 201


async def test_A46_selectors_and_rules_choose_what_it_is_asked(server: RunningServer, hooks: Hooks) -> None:
    for path in ("other", "named", "marked", "updates"):
        hooks.answers[path] = allow()
    labels = "kubernetes.io/metadata.name"
    updates = {"operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"]}
    await register(
        server, hooks, "Validating",
        {"path": "other", "namespaceSelector": {"matchLabels": {labels: "other"}}},
        {"path": "named", "namespaceSelector": {"matchLabels": {labels: "default"}}},
        {"path": "marked", "objectSelector": {"matchLabels": {"mark": "yes"}}},
        {"path": "updates", "rules": [updates]},
    )  # fmt: skip
    await create(server)
    await create(server, "b", labels={"mark": "yes"})
    await server.http("PUT", f"{CONFIG_MAPS}/a", {"metadata": {"name": "a"}, "data": {"k": "w"}})
    asked = [(path, request["operation"], request["name"]) for path, request in hooks.asked]
    assert sorted(asked) == [
        ("marked", "CREATE", "b"), ("named", "CREATE", "a"), ("named", "CREATE", "b"), ("named", "UPDATE", "a"),
        ("updates", "UPDATE", "a"),
    ]  # fmt: skip


async def test_A46_dry_run_asks_only_webhooks_without_side_effects(server: RunningServer, hooks: Hooks) -> None:
    hooks.answers["pure"] = allow()
    await register(server, hooks, "Validating", {"path": "pure"})
    assert (await create(server, query="?dryRun=All")).status == 201
    assert hooks.asked[0][1]["dryRun"] is True


async def test_A46_one_that_wants_to_sees_again_what_later_ones_changed(server: RunningServer, hooks: Hooks) -> None:
    hooks.answers["count"] = allow()
    hooks.answers["change"] = patched({"op": "add", "path": "/data/later", "value": "1"})
    await register(server, hooks, "Mutating", {"path": "count", "reinvocationPolicy": "IfNeeded"}, {"path": "change"})
    assert (await create(server)).json()["data"] == {"k": "v", "later": "1"}
    assert [(path, sorted(request["object"]["data"])) for path, request in hooks.asked] == [
        ("count", ["k"]), ("change", ["k"]), ("count", ["k", "later"]),
    ]  # fmt: skip


async def test_A46_what_a_webhook_makes_is_validated(server: RunningServer, hooks: Hooks) -> None:
    hooks.answers["spoil"] = patched({"op": "add", "path": "/metadata/labels", "value": {"bad label!": "x"}})
    await register(server, hooks, "Mutating", {"path": "spoil"})
    assert (await create(server)).status == 422


async def test_A46_the_same_over_grpc(server: RunningServer, hooks: Hooks) -> None:
    hooks.answers["no"] = lambda _request: {"allowed": False}
    await register(server, hooks, "Validating", {"path": "no"})
    obj: Any = ConfigMap()
    obj.metadata.name = "a"
    request = wire_pb2.CreateRequest(namespace="default", object=obj.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc("core.v1.ConfigMapService", "Create", request)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "denied the request without explanation" in (refused.value.details() or "")


async def test_A46_a_large_answer_is_read_whole(server: RunningServer, hooks: Hooks) -> None:
    text = "x" * 900_000
    hooks.answers["large"] = patched({"op": "add", "path": "/data/large", "value": text})
    await register(server, hooks, "Mutating", {"path": "large", "timeoutSeconds": 10})
    assert (await create(server)).json()["data"]["large"] == text


JUNK_SEEDS = range(40)


async def test_A46_whatever_a_webhook_answers_its_failure_policy_decides(server: RunningServer, hooks: Hooks) -> None:
    """Junk in every place of the answer: what fails to be one is passed over, what can't be applied is told."""
    codes = set()
    for kind in ("Mutating", "Validating"):
        await register(server, hooks, kind, {"path": "junk", "failurePolicy": "Ignore"})
    for seed in JUNK_SEEDS:
        hooks.answers["junk"] = _junk(seed)
        reply = await server.http("POST", CONFIG_MAPS, {"metadata": {"name": f"c{seed}"}, "data": {"k": "v"}})
        codes.add(reply.status)
        if reply.status >= 500:
            assert "webhook" in reply.json()["message"], (seed, reply.body)
    assert 201 in codes


def _junk(seed: int) -> Callable[[dict[str, Any]], Any]:
    hostile = Hostile(random.Random(seed))
    rng = hostile.rng

    def answer(request: dict[str, Any]) -> Any:
        if rng.random() < 0.2:
            return web.Response(body=dumps(hostile.junk()))
        place = hostile.pointer({"data": {"k": "v"}})
        patch = [{"op": rng.choice(("add", "remove", "copy")), "path": place, "value": hostile.junk()}]
        text = dumps(patch if rng.random() < 0.7 else hostile.junk())
        response: dict[str, Any] = {
            "uid": request["uid"],
            "allowed": rng.choice((True, True, True, hostile.junk())),
            "patchType": rng.choice(("JSONPatch", hostile.junk())),
            "patch": rng.choice((base64.b64encode(text).decode(), hostile.text())),
            "warnings": rng.choice(([], ["a\r\nb"], hostile.junk())),
            "status": rng.choice(({}, {"code": 10**9, "message": "x"}, hostile.junk())),
            "auditAnnotations": rng.choice(({}, hostile.junk())),
        }
        kept = {name: value for name, value in response.items() if rng.random() > 0.15}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": kept}
        return web.Response(body=dumps(review))

    return answer
