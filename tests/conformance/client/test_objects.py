"""Create, read, update, patch and delete through the Client."""

import asyncio
from typing import Any

import pytest

from tests.conformance.client.conftest import Subject
from tiphys.api.apps.v1.apps_pb2 import Deployment
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import AlreadyExists, APIError, BadRequest, Conflict, NotFound
from tiphys_client.client import Bind


def config_map(subject: Subject, name: str = "", **data: str) -> ConfigMap:
    obj = ConfigMap(data=data)
    obj.metadata.namespace = subject.namespace
    obj.metadata.name = name
    return obj


def pod(subject: Subject, name: str) -> Pod:
    obj = Pod()
    obj.metadata.namespace, obj.metadata.name = subject.namespace, name
    obj.spec.containers.add(name="main", image="busybox")
    return obj


def deployment(subject: Subject, name: str) -> Deployment:
    obj = Deployment()
    obj.metadata.namespace, obj.metadata.name = subject.namespace, name
    obj.spec.replicas = 1
    obj.spec.selector.matchLabels["app"] = name
    obj.spec.template.metadata.labels["app"] = name
    obj.spec.template.spec.containers.add(name="main", image="busybox")
    return obj


async def test_create_fills_in_what_the_server_decides(subject: Subject) -> None:
    made = await subject.client.create(config_map(subject, "a", k="v"))
    assert made.metadata.uid
    assert int(made.metadata.resourceVersion) > 0
    assert made.metadata.creationTimestamp.seconds > 0
    assert dict(made.data) == {"k": "v"}
    assert await subject.client.get(ConfigMap, "a", subject.namespace) == made


async def test_create_of_what_exists_is_refused(subject: Subject) -> None:
    await subject.client.create(config_map(subject, "a"))
    with pytest.raises(AlreadyExists, match='configmaps "a" already exists') as refused:
        await subject.client.create(config_map(subject, "a"))
    assert (refused.value.code, refused.value.reason) == (409, "AlreadyExists")


async def test_create_with_a_resource_version_is_refused(subject: Subject) -> None:
    obj = config_map(subject, "a")
    obj.metadata.resourceVersion = "1"
    with pytest.raises(BadRequest, match="resourceVersion"):
        await subject.client.create(obj)


async def test_generate_name_makes_different_names(subject: Subject) -> None:
    obj = config_map(subject)
    obj.metadata.generateName = "web-"
    names = {(await subject.client.create(obj)).metadata.name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


async def test_dry_run_stores_nothing(subject: Subject) -> None:
    made = await subject.client.create(config_map(subject, "a"), dry_run=True)
    assert made.metadata.uid
    with pytest.raises(NotFound):
        await subject.client.get(ConfigMap, "a", subject.namespace)


async def test_get_of_what_is_absent_names_it(subject: Subject) -> None:
    with pytest.raises(NotFound, match='configmaps "none" not found') as refused:
        await subject.client.get(ConfigMap, "none", subject.namespace)
    assert refused.value.code == 404


async def test_update_of_a_stale_version_conflicts_and_changes_nothing(subject: Subject) -> None:
    first = await subject.client.create(config_map(subject, "a", k="1"))
    first.data["k"] = "2"
    second = await subject.client.update(first)
    assert second.metadata.resourceVersion != first.metadata.resourceVersion
    first.data["k"] = "3"
    with pytest.raises(Conflict, match="the object has been modified"):
        await subject.client.update(first)
    assert (await subject.client.get(ConfigMap, "a", subject.namespace)).data["k"] == "2"


async def test_update_that_changes_nothing_keeps_the_version(subject: Subject) -> None:
    made = await subject.client.create(config_map(subject, "a", k="1"))
    again = await subject.client.update(made)
    assert again.metadata.resourceVersion == made.metadata.resourceVersion


async def test_update_of_another_object_of_the_name_conflicts(subject: Subject) -> None:
    old = await subject.client.create(config_map(subject, "a"))
    await subject.client.delete(ConfigMap, "a", subject.namespace)
    await subject.client.create(config_map(subject, "a"))
    old.metadata.ClearField("resourceVersion")
    old.data["k"] = "v"
    with pytest.raises(Conflict):
        await subject.client.update(old)


async def test_generation_counts_changes_of_the_spec_only(subject: Subject) -> None:
    made = await subject.client.create(deployment(subject, "web"))
    assert made.metadata.generation == 1
    made.metadata.labels["x"] = "y"
    made = await subject.client.update(made)
    assert made.metadata.generation == 1
    made.spec.replicas = 2
    made = await subject.client.update(made)
    assert made.metadata.generation == 2
    made.status.observedGeneration = 2
    made = await subject.client.update_status(made)
    assert made.metadata.generation == 2


async def test_status_and_spec_are_written_apart(subject: Subject) -> None:
    obj = deployment(subject, "web")
    obj.status.replicas = 7
    made = await subject.client.create(obj)
    assert made.status.replicas == 0
    made.status.replicas, made.spec.replicas = 3, 5
    after_status = await subject.client.update_status(made)
    assert (after_status.status.replicas, after_status.spec.replicas) == (3, 1)
    after_status.status.replicas, after_status.spec.replicas = 9, 5
    after_update = await subject.client.update(after_status)
    assert (after_update.status.replicas, after_update.spec.replicas) == (3, 5)


@pytest.mark.parametrize(
    ("form", "patch"),
    [
        pytest.param("merge", {"data": {"a": "2", "b": None}}, id="merge"),
        pytest.param("strategic", {"data": {"a": "2", "b": None}}, id="strategic"),
        pytest.param(
            "json",
            [{"op": "replace", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/b"}],
            id="json",
        ),
    ],
)
async def test_patch_changes_what_it_names(subject: Subject, form: Any, patch: Any) -> None:
    made = await subject.client.create(config_map(subject, "a", a="1", b="1", c="1"))
    after = await subject.client.patch(ConfigMap, "a", subject.namespace, patch, type=form)
    assert dict(after.data) == {"a": "2", "c": "1"}
    assert after.metadata.resourceVersion != made.metadata.resourceVersion
    assert after.metadata.uid == made.metadata.uid


async def test_patch_of_the_status_leaves_the_spec(subject: Subject) -> None:
    await subject.client.create(deployment(subject, "web"))
    patch = {"status": {"replicas": 4}, "spec": {"replicas": 9}}
    after = await subject.client.patch(Deployment, "web", subject.namespace, patch, subresource="status")
    assert (after.status.replicas, after.spec.replicas) == (4, 1)


async def test_patch_of_what_is_absent_is_not_found(subject: Subject) -> None:
    with pytest.raises(NotFound):
        await subject.client.patch(ConfigMap, "none", subject.namespace, {"data": {"a": "b"}})


async def test_delete_removes_and_a_second_one_says_so(subject: Subject) -> None:
    await subject.client.create(config_map(subject, "a"))
    await subject.client.delete(ConfigMap, "a", subject.namespace)
    with pytest.raises(NotFound):
        await subject.client.delete(ConfigMap, "a", subject.namespace)
    await subject.client.delete(ConfigMap, "a", subject.namespace, absent_ok=True)


async def test_delete_of_another_object_of_the_name_conflicts(subject: Subject) -> None:
    await subject.client.create(config_map(subject, "a"))
    with pytest.raises(Conflict, match="Precondition failed"):
        await subject.client.delete(ConfigMap, "a", subject.namespace, preconditions_uid="another")
    await subject.client.get(ConfigMap, "a", subject.namespace)


async def test_finalizer_holds_the_object_until_it_is_taken_away(subject: Subject) -> None:
    obj = config_map(subject, "a")
    obj.metadata.finalizers.append("example.com/hold")
    await subject.client.create(obj)
    await subject.client.delete(ConfigMap, "a", subject.namespace)
    held = await subject.client.get(ConfigMap, "a", subject.namespace)
    assert held.metadata.HasField("deletionTimestamp")
    held.metadata.ClearField("finalizers")
    await subject.client.update(held)
    with pytest.raises(NotFound):
        await subject.client.get(ConfigMap, "a", subject.namespace)


async def test_foreground_deletion_leaves_the_rest_to_the_collector(subject: Subject) -> None:
    await subject.client.create(deployment(subject, "web"))
    await subject.client.delete(Deployment, "web", subject.namespace, propagation="Foreground")
    held = await subject.client.get(Deployment, "web", subject.namespace)
    assert list(held.metadata.finalizers) == ["foregroundDeletion"]
    assert held.metadata.HasField("deletionTimestamp")


async def test_pod_on_a_node_gets_its_grace_period(subject: Subject) -> None:
    obj = pod(subject, "p")
    obj.spec.nodeName = "n1"
    await subject.client.create(obj)
    await subject.client.delete(Pod, "p", subject.namespace, grace_period_s=10)
    dying = await subject.client.get(Pod, "p", subject.namespace)
    assert dying.metadata.deletionGracePeriodSeconds == 10
    await subject.client.delete(Pod, "p", subject.namespace, grace_period_s=0)
    with pytest.raises(NotFound):
        await subject.client.get(Pod, "p", subject.namespace)


async def test_pod_without_a_node_goes_at_once(subject: Subject) -> None:
    await subject.client.create(pod(subject, "p"))
    await subject.client.delete(Pod, "p", subject.namespace)
    with pytest.raises(NotFound):
        await subject.client.get(Pod, "p", subject.namespace)


async def test_delete_collection_takes_what_the_selector_chooses(subject: Subject) -> None:
    for name, app in (("a", "x"), ("b", "y"), ("c", "x")):
        obj = config_map(subject, name)
        obj.metadata.labels["app"] = app
        await subject.client.create(obj)
    await subject.client.delete_collection(ConfigMap, subject.namespace, label_selector="app=x")
    left = await subject.client.list(ConfigMap, subject.namespace, label_selector="app")
    assert [item.metadata.name for item in left.items] == ["b"]


async def test_batch_create_answers_for_each_in_order(subject: Subject) -> None:
    await subject.client.create(config_map(subject, "b"))
    results = await subject.client.batch_create([config_map(subject, name) for name in "abc"])
    assert [type(result) for result in results] == [ConfigMap, AlreadyExists, ConfigMap]
    assert await subject.client.batch_create([]) == []


async def test_A56_batch_of_all_or_nothing_is_stored_whole_or_not_at_all(subject: Subject) -> None:
    made = await subject.client.batch_create([config_map(subject, name) for name in "ab"], all_or_nothing=True)
    assert [type(result) for result in made] == [ConfigMap, ConfigMap]
    results = await subject.client.batch_create([config_map(subject, name) for name in "xby"], all_or_nothing=True)
    assert [type(result) for result in results] == [Conflict, AlreadyExists, Conflict]
    names = {item.metadata.name for item in (await subject.client.list(ConfigMap, subject.namespace)).items}
    assert names >= {"a", "b"}
    assert not names & {"x", "y"}


async def test_A56_batch_larger_than_a_transaction_is_refused(subject: Subject) -> None:
    many = [config_map(subject, f"c{number}") for number in range(129)]
    with pytest.raises(BadRequest, match="129 objects"):
        await subject.client.batch_create(many, all_or_nothing=True)


async def test_batch_patch_answers_for_each_in_order(subject: Subject) -> None:
    for name in "ab":
        await subject.client.create(config_map(subject, name, k="v"))
    changes = [
        ("a", {"data": {"k": "w"}}),
        ("none", {"data": {"k": "w"}}),
        ("b", {"metadata": {"uid": "another"}, "data": {"k": "w"}}),
    ]
    results = await subject.client.batch_patch(ConfigMap, subject.namespace, changes)
    assert [type(result) for result in results] == [type(None), NotFound, Conflict]
    listed = await subject.client.list(ConfigMap, subject.namespace)
    found = {item.metadata.name: item.data["k"] for item in listed.items if item.metadata.name in ("a", "b")}
    assert found == {"a": "w", "b": "v"}
    assert await subject.client.batch_patch(ConfigMap, subject.namespace, []) == []


async def test_batch_patch_of_statuses_merges_each_by_the_keys_of_its_lists(subject: Subject) -> None:
    made = [await subject.client.create(pod(subject, name)) for name in "ab"]
    for kind in ("PodScheduled", "DisruptionTarget"):
        condition = {"type": kind, "status": "False", "message": f"of {kind}"}
        patches = [
            (one.metadata.name, {"metadata": {"uid": one.metadata.uid}, "status": {"conditions": [condition]}})
            for one in made
        ]
        answer = subject.client.batch_patch(Pod, subject.namespace, patches, type="strategic", subresource="status")
        assert await answer == [None, None]
    for name in "ab":
        stored = await subject.client.get(Pod, name, subject.namespace)
        assert {c.type: c.message for c in stored.status.conditions} == {
            "PodScheduled": "of PodScheduled",
            "DisruptionTarget": "of DisruptionTarget",
        }


async def test_batch_patch_of_statuses_answers_for_each_in_order(subject: Subject) -> None:
    made = [await subject.client.create(pod(subject, name)) for name in "ab"]
    status = {"status": {"phase": "Running"}}
    patches = [
        ("a", {"metadata": {"uid": made[0].metadata.uid}, **status}),
        ("none", status),
        ("b", {"metadata": {"uid": "another"}, **status}),
        ("a", {"status": {"reason": "twice"}}),
        ("a", {"status": {"phase": "Running"}, "spec": {"nodeName": "n1"}}),
    ]
    results = await subject.client.batch_patch(Pod, subject.namespace, patches, type="strategic", subresource="status")
    assert [type(result) for result in results] == [type(None), NotFound, Conflict, type(None), type(None)]
    found = {one.metadata.name: one for one in (await subject.client.list(Pod, subject.namespace)).items}
    assert (found["a"].status.phase, found["a"].status.reason) == ("Running", "twice")
    assert found["b"].status.phase != "Running"
    # What is wanted of it is not changed through this door.
    assert not found["a"].spec.nodeName
    again = await subject.client.batch_patch(Pod, subject.namespace, [("a", status)], subresource="status")
    assert again == [None]
    same = await subject.client.get(Pod, "a", subject.namespace)
    assert same.metadata.resourceVersion == found["a"].metadata.resourceVersion


async def test_batch_delete_answers_for_each_in_order(subject: Subject) -> None:
    made = [await subject.client.create(config_map(subject, name)) for name in "ab"]
    held = config_map(subject, "held")
    held.metadata.finalizers.append("example.com/hold")
    await subject.client.create(held)
    wanted = [("a", made[0].metadata.uid), ("none", ""), ("b", "another"), ("held", "")]
    results = await subject.client.batch_delete(ConfigMap, subject.namespace, wanted)
    assert [type(result) for result in results] == [type(None), NotFound, Conflict, type(None)]
    left = {item.metadata.name: item for item in (await subject.client.list(ConfigMap, subject.namespace)).items}
    assert "a" not in left
    assert not left["b"].metadata.HasField("deletionTimestamp")
    assert left["held"].metadata.HasField("deletionTimestamp")
    assert await subject.client.batch_delete(ConfigMap, subject.namespace, []) == []


async def test_batch_delete_gives_each_pod_its_own_grace_unless_told_otherwise(subject: Subject) -> None:
    for name, grace_s in (("long", 60), ("short", 5), ("now", 7)):
        obj = pod(subject, name)
        obj.spec.nodeName, obj.spec.terminationGracePeriodSeconds = "n1", grace_s
        await subject.client.create(obj)
    names = [("long", ""), ("short", "")]
    assert await subject.client.batch_delete(Pod, subject.namespace, names) == [None, None]
    assert await subject.client.batch_delete(Pod, subject.namespace, [("now", "")], grace_period_s=0) == [None]
    left = (await subject.client.list(Pod, subject.namespace)).items
    assert {item.metadata.name: item.metadata.deletionGracePeriodSeconds for item in left} == {"long": 60, "short": 5}


async def test_batch_bind_answers_for_each_in_order(subject: Subject) -> None:
    await subject.client.create(pod(subject, "p"))
    results = await subject.client.bind(
        [Bind(subject.namespace, "p", "n1"), Bind(subject.namespace, "none", "n1"), Bind(subject.namespace, "p", "n2")]
    )
    assert results[0] is None
    assert isinstance(results[1], NotFound)
    assert isinstance(results[2], Conflict)
    bound = await subject.client.get(Pod, "p", subject.namespace)
    assert bound.spec.nodeName == "n1"
    assert [(c.type, c.status) for c in bound.status.conditions if c.type == "PodScheduled"] == [
        ("PodScheduled", "True")
    ]


async def test_token_is_made_for_the_service_account(real_server: Subject) -> None:
    target = await real_server.client.create(pod(real_server, "p"))
    answer = await real_server.client.create_token("default", real_server.namespace, audiences=["vault"], pod=target)
    assert answer.status.token.count(".") == 2
    assert answer.status.expirationTimestamp.seconds > 0


async def test_concurrent_updates_lose_none(subject: Subject) -> None:
    await subject.client.create(config_map(subject, "n", count="0"))

    async def increment() -> None:
        while True:
            obj = await subject.client.get(ConfigMap, "n", subject.namespace)
            obj.data["count"] = str(int(obj.data["count"]) + 1)
            try:
                await subject.client.update(obj)
            except Conflict:
                continue
            return

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(increment())
    assert (await subject.client.get(ConfigMap, "n", subject.namespace)).data["count"] == "5"


async def test_unknown_subresource_and_kind_are_errors_of_the_api(subject: Subject) -> None:
    with pytest.raises(APIError):
        await subject.client.update_status(config_map(subject, "a"))
    with pytest.raises(TypeError, match="not an API object"):
        await subject.client.get(meta_pb2.ObjectMeta, "a")
