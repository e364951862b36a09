"""Lists and gets from the cache: selectors, pages, and what a resourceVersion means."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.pod_cache import key, pod_value, running_cacher, selection
from tiphys_apimachinery.errors import APIError, BadRequest, Expired, Invalid, Timeout
from tiphys_apiserver.storage.cacher import CachedList, Cacher, CacherSettings
from tiphys_apiserver.storage.list_query import ContinueExpired, ListQuery
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.selection import Selection
from tiphys_component.clock import FakeClock


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(FakeClock())


@pytest.fixture
async def cacher(store: MemoryStore) -> AsyncIterator[Cacher]:
    settings = CacherSettings(fresh_wait_s=0.05, history_events=20, fill_page=3)
    async with running_cacher(store, FakeClock(), settings=settings) as cacher:
        yield cacher


def names(found: CachedList) -> list[str]:
    return [f"{cached.namespace}/{cached.name}" for cached in found.items]


async def make_pods(store: MemoryStore) -> dict[str, int]:
    return {
        "a/one": await store.create(key("one"), pod_value("one", labels={"app": "web", "tier": "x"}, node="n1")),
        "a/two": await store.create(key("two"), pod_value("two", labels={"app": "web"}, node="n2")),
        "b/three": await store.create(key("three", "b"), pod_value("three", "b", labels={"app": "db"}, node="n1")),
        "b/four": await store.create(key("four", "b"), pod_value("four", "b", owner_uid="u1")),
    }


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        pytest.param(selection(), ["a/one", "a/two", "b/four", "b/three"], id="everything"),
        pytest.param(selection(namespace="a"), ["a/one", "a/two"], id="namespace"),
        pytest.param(selection(namespace="none"), [], id="absent-namespace"),
        pytest.param(selection("app=web"), ["a/one", "a/two"], id="label"),
        pytest.param(selection("app=web", namespace="b"), [], id="label-of-other-namespace"),
        pytest.param(selection("app in (web,db),tier!=x"), ["a/two", "b/three"], id="set-and-inequality"),
        pytest.param(selection("!app"), ["b/four"], id="absent-label"),
        pytest.param(selection("app=none"), [], id="label-nobody-has"),
        pytest.param(selection(fields="spec.nodeName=n1"), ["a/one", "b/three"], id="field"),
        pytest.param(selection(fields="spec.nodeName!=n1"), ["a/two", "b/four"], id="field-not"),
        pytest.param(selection("app=web", "spec.nodeName=n1"), ["a/one"], id="label-and-field"),
        pytest.param(selection(fields="metadata.name=two"), ["a/two"], id="name"),
        pytest.param(selection(fields="metadata.name=two", namespace="a"), ["a/two"], id="name-in-namespace"),
        pytest.param(selection(fields="metadata.namespace=b"), ["b/four", "b/three"], id="namespace-as-field"),
        pytest.param(selection(fields="metadata.namespace=b", namespace="a"), [], id="two-namespaces"),
        pytest.param(Selection(owner_uid="u1"), ["b/four"], id="owner"),
    ],
)
async def test_selectors_choose_by_index_what_a_scan_would(
    store: MemoryStore, cacher: Cacher, chosen: Selection, expected: list[str]
) -> None:
    await make_pods(store)
    assert names(await cacher.list(chosen)) == expected


async def test_index_follows_changes_of_labels_and_fields(store: MemoryStore, cacher: Cacher) -> None:
    made = await make_pods(store)
    await store.update(key("one"), pod_value("one", labels={"app": "db"}, node="n2"), expected_revision=made["a/one"])
    await store.delete(key("two"))
    assert names(await cacher.list(selection("app=web"))) == []
    assert names(await cacher.list(selection("app=db"))) == ["a/one", "b/three"]
    assert names(await cacher.list(selection(fields="spec.nodeName=n2"))) == ["a/one"]


async def test_unknown_field_is_refused(cacher: Cacher) -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.color"):
        await cacher.list(selection(fields="spec.color=red"))


async def test_A15_list_right_after_a_write_sees_it_with_its_version(store: MemoryStore, cacher: Cacher) -> None:
    revision = await store.create(key("one"), pod_value("one"))
    found = await cacher.list(Selection())
    assert found.revision == revision
    assert found.items[0].message().metadata.resourceVersion == str(revision)


async def test_object_is_there_without_waiting_once_its_write_returned(store: MemoryStore, cacher: Cacher) -> None:
    await store.create(key("one"), pod_value("one"))
    cached = cacher.get_nowait("a", "one")
    assert cached is not None
    assert cached.name == "one"


async def test_get_finds_the_newest_and_knows_the_absent(store: MemoryStore, cacher: Cacher) -> None:
    revision = await store.create(key("one"), pod_value("one"))
    found = await cacher.get("a", "one")
    assert found is not None
    assert found.rv == revision
    assert await cacher.get("a", "two") is None
    with pytest.raises(Timeout, match=f"Too large resource version: {revision + 5}, current: {revision}"):
        await cacher.get("a", "one", resource_version=str(revision + 5))


async def test_A15_list_revision_moves_on_with_other_resources(store: MemoryStore, cacher: Cacher) -> None:
    await make_pods(store)
    other = await store.create("/registry/minions/n1", b"not a pod")
    assert (await cacher.list(Selection())).revision == other


async def test_unreadable_value_is_left_out_and_hides_nothing_else(store: MemoryStore, cacher: Cacher) -> None:
    await store.create(key("broken"), b"no envelope")
    await store.create(key("broken2"), b"k8s\x00\xff\xff")
    await store.create(key("fine"), pod_value("fine"))
    assert names(await cacher.list(Selection())) == ["a/fine"]


# -- pages


async def test_A16_pages_show_the_state_of_the_first_while_writers_go_on(store: MemoryStore, cacher: Cacher) -> None:
    made = {name: await store.create(key(name), pod_value(name)) for name in "abcdefg"}
    first = await cacher.list(Selection(), ListQuery(limit=3))
    assert names(first) == ["a/a", "a/b", "a/c"]
    assert first.remaining == 4
    await store.delete(key("d"))
    await store.create(key("dd"), pod_value("dd"))
    await store.update(key("e"), pod_value("e", note="changed"), expected_revision=made["e"])
    second = await cacher.list(Selection(), ListQuery(limit=3, continue_token=first.continue_token))
    assert [(cached.name, cached.rv) for cached in second.items] == [(name, made[name]) for name in "def"]
    assert (second.revision, second.remaining) == (first.revision, 1)
    third = await cacher.list(Selection(), ListQuery(limit=3, continue_token=second.continue_token))
    assert (names(third), third.continue_token, third.remaining) == (["a/g"], "", None)


async def test_pages_with_a_selector_are_full_and_do_not_count(store: MemoryStore, cacher: Cacher) -> None:
    for number in range(8):
        labels = {"odd": "yes"} if number % 2 else {}
        await store.create(key(f"p{number}"), pod_value(f"p{number}", labels=labels))
    first = await cacher.list(selection("odd=yes", namespace="a"), ListQuery(limit=3))
    assert names(first) == ["a/p1", "a/p3", "a/p5"]
    assert first.remaining is None
    second = await cacher.list(selection("odd=yes", namespace="a"), ListQuery("", "", 3, first.continue_token))
    assert names(second) == ["a/p7"]


async def test_A16_page_older_than_memory_comes_from_the_store(store: MemoryStore, cacher: Cacher) -> None:
    for name in "abcdef":
        await store.create(key(name), pod_value(name))
    first = await cacher.list(Selection(), ListQuery(limit=2))
    for number in range(30):
        await store.create(key(f"x{number:02}"), pod_value(f"x{number:02}"))
    await store.delete(key("c"))
    second = await cacher.list(Selection(), ListQuery(limit=10, continue_token=first.continue_token))
    assert names(second) == ["a/c", "a/d", "a/e", "a/f"]
    assert second.revision == first.revision


async def test_A20_page_older_than_the_store_is_expired_with_a_new_token(store: MemoryStore, cacher: Cacher) -> None:
    for name in "abcdef":
        await store.create(key(name), pod_value(name))
    first = await cacher.list(Selection(), ListQuery(limit=2))
    for number in range(30):
        await store.create(key(f"x{number:02}"), pod_value(f"x{number:02}"))
    await store.delete(key("c"))
    await store.compact(await store.revision())
    with pytest.raises(ContinueExpired) as caught:
        await cacher.list(Selection(), ListQuery(limit=2, continue_token=first.continue_token))
    status = caught.value.to_status()
    assert (status.code, status.reason) == (410, "Expired")
    rest = await cacher.list(Selection(), ListQuery(limit=3, continue_token=getattr(status.metadata, "continue")))
    assert names(rest) == ["a/d", "a/e", "a/f"]
    assert rest.revision == await store.revision()


# -- resourceVersion


@pytest.mark.parametrize(
    ("version", "match", "limit", "expected"),
    [
        pytest.param("", "", 0, "newest", id="unset-is-consistent"),
        pytest.param("0", "", 0, "newest", id="zero-is-any"),
        pytest.param("0", "NotOlderThan", 0, "newest", id="zero-not-older"),
        pytest.param("old", "", 0, "newest", id="version-is-not-older"),
        pytest.param("old", "NotOlderThan", 0, "newest", id="not-older"),
        pytest.param("old", "NotOlderThan", 5, "newest", id="not-older-with-limit"),
        pytest.param("old", "Exact", 0, "old", id="exact"),
        pytest.param("old", "", 5, "old", id="limit-makes-it-exact"),
        pytest.param("future", "", 0, Timeout, id="future"),
        pytest.param("future", "Exact", 0, Timeout, id="exact-future"),
        pytest.param("", "Exact", 0, Invalid, id="exact-of-nothing"),
        pytest.param("", "NotOlderThan", 0, Invalid, id="not-older-than-nothing"),
        pytest.param("0", "Exact", 0, Invalid, id="exact-zero"),
        pytest.param("old", "Roughly", 0, Invalid, id="unknown-match"),
        pytest.param("abc", "", 0, BadRequest, id="no-number"),
        pytest.param("-1", "", 0, BadRequest, id="negative"),
    ],
)
async def test_A19_resource_version_and_match_choose_the_state(
    store: MemoryStore, cacher: Cacher, version: str, match: str, limit: int, expected: str | type[APIError]
) -> None:
    old = await store.create(key("one"), pod_value("one"))
    newest = await store.create(key("two"), pod_value("two"))
    text = {"old": str(old), "future": str(newest + 9)}.get(version, version)
    query = ListQuery(text, match, limit)
    if isinstance(expected, str):
        found = await cacher.list(Selection(), query)
        assert (len(found.items), found.revision) == ((1, old) if expected == "old" else (2, newest))
    else:
        with pytest.raises(expected):
            await cacher.list(Selection(), query)


async def test_A19_exact_version_that_is_forgotten_is_expired(store: MemoryStore, cacher: Cacher) -> None:
    old = await store.create(key("one"), pod_value("one"))
    for number in range(30):
        await store.create(key(f"x{number:02}"), pod_value(f"x{number:02}"))
    assert names(await cacher.list(Selection(), ListQuery(str(old), "Exact"))) == ["a/one"]
    await store.compact(await store.revision())
    with pytest.raises(Expired):
        await cacher.list(Selection(), ListQuery(str(old), "Exact"))


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(ListQuery(continue_token="%%%"), id="not-base64"),
        pytest.param(ListQuery(continue_token="e30"), id="empty-token"),
        pytest.param(ListQuery("5", continue_token="eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJhIn0"), id="rv"),
        pytest.param(ListQuery(limit=-1), id="negative-limit"),
    ],
)
async def test_options_that_make_no_sense_are_refused(cacher: Cacher, query: ListQuery) -> None:
    with pytest.raises(BadRequest):
        await cacher.list(Selection(), query)


async def test_list_waits_for_a_version_that_is_about_to_come(store: MemoryStore, cacher: Cacher) -> None:
    revision = await store.create(key("one"), pod_value("one"))
    await cacher.wait_applied(revision)
    assert cacher.revision == revision
