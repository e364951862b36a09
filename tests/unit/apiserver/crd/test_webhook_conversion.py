"""Conversion by a webhook: in batches, once an object version, and with errors that name it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import orjson
import pytest

from tests.support.promptness import PROMPTLY_S
from tiphys.api.apiextensions.v1 import apiextensions_pb2 as pb
from tiphys_apimachinery.errors import InternalError
from tiphys_apiserver.admission.webhooks.caller import CallFailed
from tiphys_apiserver.admission.webhooks.hooks import Endpoint
from tiphys_apiserver.crd.info import CustomInfo, info_of
from tiphys_apiserver.crd.schema import VersionSchema
from tiphys_apiserver.crd.webhook_conversion import ConversionWebhook, WebhookConverter
from tiphys_apiserver.registry.table import object_format
from tiphys_apiserver.storage.objects import CachedObject

ENDPOINT = Endpoint("https://hook.example.com/convert", None, 443, "", b"")


def info(version: str) -> CustomInfo:
    crd = pb.CustomResourceDefinition()
    crd.spec.group, crd.spec.scope = "a.io", "Namespaced"
    crd.spec.names.plural, crd.spec.names.kind = "things", "Thing"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    found = pb.CustomResourceDefinitionVersion(name=version)
    return info_of(crd, found, VersionSchema(orjson.dumps(schema)), storage_version="v2")


OLD, NEW = info("v1"), info("v2")
OLD_FORMAT, NEW_FORMAT = object_format(OLD), object_format(NEW)


class Webhook:
    """Adds the version to each object. While the gate is shut nobody gets an answer."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def post(self, endpoint: Endpoint, body: bytes, *, timeout_s: float) -> bytes:
        request = orjson.loads(body)["request"]
        self.asked.append(len(request["objects"]))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        wanted = request["desiredAPIVersion"]
        made = [{**obj, "apiVersion": wanted, "made": wanted} for obj in request["objects"]]
        response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": made}
        kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}
        return orjson.dumps({**kind, "response": response})


def converter(webhook: Webhook) -> WebhookConverter:
    uids = count()
    return WebhookConverter(ConversionWebhook(ENDPOINT, webhook, lambda: f"u{next(uids)}"), NEW, NEW, NEW_FORMAT)


def cached(name: str, rv: int = 1, *, of: Any = OLD) -> CachedObject:
    obj = of.message()
    obj.metadata.name, obj.metadata.namespace = name, "default"
    return CachedObject(f"/registry/a.io/things/default/{name}", rv, obj, OLD_FORMAT if of is OLD else NEW_FORMAT)


async def soon(test: Callable[[], bool]) -> None:
    async with asyncio.timeout(PROMPTLY_S):
        while not test():  # noqa: ASYNC110  a turn of the loop, no waiting
            await asyncio.sleep(0)


def versions(items: Sequence[CachedObject]) -> list[tuple[str, str, Any]]:
    return [(item.name, item.api_version, item.message().content.get("made")) for item in items]


async def test_A39_only_objects_of_other_versions_are_sent_and_the_order_stays() -> None:
    webhook = Webhook()
    found = await converter(webhook).view([cached("a"), cached("b", of=NEW), cached("c")])
    assert versions(found) == [("a", "a.io/v2", "a.io/v2"), ("b", "a.io/v2", None), ("c", "a.io/v2", "a.io/v2")]
    assert webhook.asked == [2]


async def test_A39_a_long_list_is_sent_in_parts() -> None:
    webhook = Webhook()
    found = await converter(webhook).view([cached(f"n{index}") for index in range(1100)])
    assert [item.name for item in found] == [f"n{index}" for index in range(1100)]
    assert webhook.asked == [500, 500, 100]


async def test_A39_an_answer_is_kept_for_its_version_of_the_object() -> None:
    webhook = Webhook()
    view = converter(webhook).view
    first = await view([cached("a")])
    assert await view([cached("a")]) == first
    assert webhook.asked == [1]
    await view([cached("a", rv=2)])
    assert webhook.asked == [1, 1]


async def test_A39_many_who_wait_for_one_object_ask_once() -> None:
    webhook = Webhook()
    webhook.gate.clear()
    made = converter(webhook)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(made.view([cached("a")])) for _ in range(20)]
        await soon(lambda: bool(webhook.asked))
        webhook.gate.set()
    assert webhook.asked == [1]
    assert {id(task.result()[0]) for task in tasks} == {id(tasks[0].result()[0])}


async def test_A39_who_waits_asks_anew_when_the_one_who_asked_has_gone() -> None:
    webhook = Webhook()
    webhook.gate.clear()
    made = converter(webhook)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(made.view([cached("a")]))
        await soon(lambda: bool(webhook.asked))
        second = group.create_task(made.view([cached("a")]))
        await asyncio.sleep(0)
        first.cancel()
        await soon(lambda: len(webhook.asked) == 2)
        webhook.gate.set()
    assert versions(second.result()) == [("a", "a.io/v2", "a.io/v2")]


async def test_A39_a_failure_names_kind_and_webhook_and_is_not_kept() -> None:
    webhook = Webhook()
    webhook.failure = CallFailed("context deadline exceeded")
    made = converter(webhook)
    with pytest.raises(InternalError) as failed:
        await made.view([cached("a")])
    text = str(failed.value)
    assert "conversion webhook for a.io/v1, Kind=Thing failed: context deadline exceeded" in text
    assert "https://hook.example.com/convert" in text
    webhook.failure = None
    assert versions(await made.view([cached("a")])) == [("a", "a.io/v2", "a.io/v2")]


async def test_A39_a_bookmark_needs_no_webhook() -> None:
    webhook = Webhook()
    [found] = await converter(webhook).view([OLD_FORMAT.bookmark(7, initial_events_end=True)])
    assert (found.resource_version, found.api_version, webhook.asked) == ("7", "a.io/v2", [])
    assert found.message().metadata.annotations["k8s.io/initial-events-end"] == "true"
