"""List and watch through the Client."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from tests.conformance.client.conftest import Subject
from tests.conformance.client.test_objects import config_map, pod
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError, BadRequest
from tiphys_client.client import EventType, WatchEvent

Seen = list[tuple[str, str]]


async def collect(batches: AsyncGenerator[list[WatchEvent[ConfigMap]]], count: int) -> Seen:
    """Type and name of the next events, bookmarks aside."""
    seen: Seen = []
    async with asyncio.timeout(5), aclosing(batches) as opened:
        async for batch in opened:
            seen += [(e.type.name, e.object.metadata.name) for e in batch if e.type is not EventType.BOOKMARK]
            if len(seen) >= count:
                break
    return seen


async def labelled(subject: Subject, name: str, app: str) -> ConfigMap:
    obj = config_map(subject, name)
    obj.metadata.labels["app"] = app
    return await subject.client.create(obj)


async def test_list_chooses_by_namespace_labels_and_fields(subject: Subject) -> None:
    await labelled(subject, "a", "x")
    await labelled(subject, "b", "y")
    client = subject.client
    by_label = await client.list(ConfigMap, subject.namespace, label_selector="app in (x,z)")
    by_field = await client.list(ConfigMap, subject.namespace, field_selector="metadata.name=b")
    nowhere = await client.list(ConfigMap, "no-such-namespace")
    assert [item.metadata.name for item in by_label.items] == ["a"]
    assert [item.metadata.name for item in by_field.items] == ["b"]
    assert len(nowhere) == 0
    assert int(nowhere.resource_version) > 0


async def test_pods_are_found_by_their_node(subject: Subject) -> None:
    for name, node in (("p", "n1"), ("q", "n2"), ("r", "")):
        obj = pod(subject, name)
        obj.spec.nodeName = node
        await subject.client.create(obj)
    for selector, names in (("spec.nodeName=n1", ["p"]), ("spec.nodeName=", ["r"]), ("spec.nodeName!=n1", ["q", "r"])):
        found = await subject.client.list(Pod, subject.namespace, field_selector=selector)
        assert [item.metadata.name for item in found.items] == names


async def test_pages_together_are_one_state(subject: Subject) -> None:
    for name in "abcde":
        await labelled(subject, name, "pages")
    names: list[str] = []
    versions: set[str] = set()
    token = ""
    while True:
        page = await subject.client.list(
            ConfigMap, subject.namespace, label_selector="app=pages", limit=2, continue_token=token
        )
        names += [item.metadata.name for item in page.items]
        versions.add(page.resource_version)
        token = page.continue_token
        if not token:
            break
        await subject.client.delete(ConfigMap, "e", subject.namespace, absent_ok=True)
    assert names == list("abcde")
    assert len(versions) == 1


@pytest.mark.parametrize("selector", ["app in (x", "=,="])
async def test_bad_selector_is_refused(subject: Subject, selector: str) -> None:
    with pytest.raises(BadRequest):
        await subject.client.list(ConfigMap, subject.namespace, label_selector=selector)


async def test_watch_from_a_list_has_every_change_once_in_order(subject: Subject) -> None:
    await labelled(subject, "before", "x")
    start = (await subject.client.list(ConfigMap, subject.namespace)).resource_version
    made = await labelled(subject, "a", "x")
    made.data["k"] = "v"
    await subject.client.update(made)
    await subject.client.delete(ConfigMap, "a", subject.namespace)
    seen = await collect(subject.client.watch(ConfigMap, subject.namespace, resource_version=start), 3)
    assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_watch_resumes_behind_the_version_given(subject: Subject) -> None:
    first = await labelled(subject, "a", "x")
    await labelled(subject, "b", "x")
    watch = subject.client.watch(ConfigMap, subject.namespace, resource_version=first.metadata.resourceVersion)
    assert await collect(watch, 1) == [("ADDED", "b")]


async def test_object_that_leaves_a_selection_is_deleted_for_its_watcher(subject: Subject) -> None:
    start = (await subject.client.list(ConfigMap, subject.namespace)).resource_version
    made = await labelled(subject, "a", "x")
    made.metadata.labels["app"] = "y"
    made = await subject.client.update(made)
    made.metadata.labels["app"] = "x"
    await subject.client.update(made)
    watch = subject.client.watch(
        ConfigMap, subject.namespace, resource_version=start, label_selector="app=x", allow_bookmarks=False
    )
    assert await collect(watch, 3) == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]


async def test_deleted_object_carries_the_version_of_its_deletion(subject: Subject) -> None:
    made = await labelled(subject, "a", "x")
    version = made.metadata.resourceVersion
    await subject.client.delete(ConfigMap, "a", subject.namespace)
    async with aclosing(subject.client.watch(ConfigMap, subject.namespace, resource_version=version)) as batches:
        async with asyncio.timeout(5):
            event = (await anext(batches))[0]
    assert event.type is EventType.DELETED
    assert int(event.object.metadata.resourceVersion) > int(version)


async def test_A14_streamed_list_ends_with_its_bookmark(subject: Subject) -> None:
    await labelled(subject, "a", "x")
    await labelled(subject, "b", "x")
    names: list[str] = []
    async with asyncio.timeout(5):
        async for batch in subject.client.watch(
            ConfigMap, subject.namespace, label_selector="app=x", send_initial_events=True,
            resource_version_match="NotOlderThan",
        ):  # fmt: skip
            for event in batch:
                if event.type is EventType.BOOKMARK:
                    assert event.object.metadata.annotations["k8s.io/initial-events-end"] == "true"
                    assert names == ["a", "b"]
                    return
                assert event.type is EventType.ADDED
                names.append(event.object.metadata.name)
    pytest.fail("the stream ended without its bookmark")


async def test_broken_watch_is_an_error_of_the_api(subject: Subject) -> None:
    start = (await subject.client.list(ConfigMap, subject.namespace)).resource_version
    watch = subject.client.watch(ConfigMap, subject.namespace, resource_version=start)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_failure(watch))
        await asyncio.sleep(0.01)
        await subject.break_watches()
    assert waiting.result().code == 503


async def _failure(watch: AsyncIterator[list[WatchEvent[ConfigMap]]]) -> APIError:
    try:
        async with asyncio.timeout(5):
            async for _ in watch:
                pass
    except APIError as err:
        return err
    pytest.fail("the watch ended without an error")
