"""etcd holds all objects, under Kubernetes' keys, and a cluster of it loses a member without losing a write."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import RunningServer, running_server
from tests.support.etcd import EtcdMember
from tiphys_apimachinery.scheme import load_default

pytestmark = pytest.mark.etcd
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
# Until others elect a leader, on a machine with other work.
_PATIENCE_S = 60.0


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[EtcdMember]]:
    members = EtcdMember.cluster(tmp_path, 3)
    yield members
    for member in members:
        member.kill()


@pytest.fixture
def member(tmp_path: Path) -> Iterator[EtcdMember]:
    member = EtcdMember(tmp_path)
    member.start()
    yield member
    member.kill()


def keys_in(member: EtcdMember) -> set[str]:
    """What etcd's own tool finds."""
    tool = shutil.which("etcdctl")
    assert tool is not None, "apt-get install etcd-client"
    command = [tool, f"--endpoints={member.endpoint}", "get", "--prefix", "/registry", "--keys-only"]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env={"ETCDCTL_API": "3"}).stdout
    return set(found.split())


async def keys_by_api(server: RunningServer) -> set[str]:
    """The key of every object that any list shows."""
    keys = set()
    for info in load_default().resources():
        if not {"create", "list"} <= set(info.verbs):
            continue
        root = f"/apis/{info.group}" if info.group else "/api"
        listed = (await server.http("GET", f"{root}/{info.version}/{info.plural}")).json()
        for item in listed["items"]:
            parts = (item["metadata"].get("namespace"), item["metadata"]["name"])
            keys.add("/".join((info.storage_key_prefix, *filter(None, parts))))
    return keys


async def test_A8_etcd_holds_each_object_under_one_key_and_nothing_else(member: EtcdMember) -> None:
    async with running_server(store="etcd", etcd_servers=(f"http://{member.endpoint}",)) as server:
        for name in ("a", "b"):
            assert (await server.http("POST", CONFIG_MAPS, {"metadata": {"name": name}})).status == 201
        role = {"metadata": {"name": "readers"}, "rules": []}
        assert (await server.http("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)).status == 201
        shown = await keys_by_api(server)
        stored = keys_in(member)
    assert {"/registry/configmaps/default/a", "/registry/clusterroles/readers"} <= shown
    assert shown <= stored
    # Addresses of services are claimed in the store by keys of their own.
    assert {key for key in stored - shown if not key.startswith("/registry/ranges/")} == set()


async def test_A8_no_acknowledged_write_is_lost_with_the_leader_of_three(members: list[EtcdMember]) -> None:
    """Writes go on after the leader is killed, and all that were answered with 201, before and after, are there."""
    endpoints = tuple(f"http://{member.endpoint}" for member in members)
    async with running_server(store="etcd", etcd_servers=endpoints) as server:
        acknowledged: set[str] = set()
        numbers = iter(range(100_000))

        async def write_until(count: int) -> None:
            async with asyncio.timeout(_PATIENCE_S):
                while len(acknowledged) < count:
                    name = f"c{next(numbers)}"
                    if (await server.http("POST", CONFIG_MAPS, {"metadata": {"name": name}})).status == 201:
                        acknowledged.add(name)

        await write_until(20)
        async with asyncio.TaskGroup() as group:
            group.create_task(write_until(60))
            group.create_task(asyncio.to_thread(lambda: next(m for m in members if m.is_leader).kill()))
        listed = (await server.http("GET", CONFIG_MAPS)).json()["items"]
        assert acknowledged <= {item["metadata"]["name"] for item in listed}
