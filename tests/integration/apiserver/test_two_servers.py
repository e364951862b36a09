"""Two API servers over one etcd: what one writes the other shows, and one may go while the other serves on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.apiserver.test_rest_watch import watch
from tests.support.apiserver import RunningServer, running_server
from tests.support.etcd import EtcdMember

pytestmark = pytest.mark.etcd
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/api/v1/namespaces/default/services"
Pair = tuple[RunningServer, RunningServer]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[EtcdMember]:
    member = EtcdMember(tmp_path)
    member.start()
    yield member
    member.kill()


@pytest.fixture
async def servers(member: EtcdMember) -> AsyncIterator[Pair]:
    async with running_server(**over(member)) as one, running_server(**over(member)) as other:
        yield one, other


def over(member: EtcdMember) -> dict[str, Any]:
    return {"store": "etcd", "etcd_servers": (f"http://{member.endpoint}",)}


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


async def test_A15_what_one_server_wrote_the_other_shows_at_once(servers: Pair) -> None:
    for number in range(20):
        writer, reader = servers[number % 2], servers[(number + 1) % 2]
        assert (await writer.http("POST", CONFIG_MAPS, config_map(f"c{number}"))).status == 201
        assert (await reader.http("GET", f"{CONFIG_MAPS}/c{number}")).status == 200
        assert len((await reader.http("GET", CONFIG_MAPS)).json()["items"]) == number + 1


async def test_A18_writers_at_two_servers_lose_nothing(servers: Pair) -> None:
    """Each adds one to a counter ten times, and reads again after a conflict."""
    await servers[0].http("POST", CONFIG_MAPS, config_map("counter", n="0"))
    outcomes: Counter[int] = Counter()

    async def count(server: RunningServer) -> None:
        done = 0
        while done < 10:
            read = (await server.http("GET", f"{CONFIG_MAPS}/counter")).json()
            read["data"]["n"] = str(int(read["data"]["n"]) + 1)
            status = (await server.http("PUT", f"{CONFIG_MAPS}/counter", read)).status
            outcomes[status] += 1
            done += status == 200

    async with asyncio.TaskGroup() as group:
        for server in servers * 2:
            group.create_task(count(server))
    assert (await servers[0].http("GET", f"{CONFIG_MAPS}/counter")).json()["data"]["n"] == "40"
    assert set(outcomes) == {200, 409}


async def test_A10_watchers_at_both_servers_see_one_order(servers: Pair) -> None:
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(watch(server)) for server in servers]
        for number in range(20):
            await servers[number % 2].http("POST", CONFIG_MAPS, config_map(f"c{number}"))
        seen = [[await watching.next() for _ in range(20)] for watching in watches]
    assert seen[0] == seen[1]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen[0]]
    assert versions == sorted(set(versions))


async def test_A11_watch_goes_on_at_the_other_server_where_it_ended(servers: Pair) -> None:
    one, other = servers
    made = (await one.http("POST", CONFIG_MAPS, config_map("a"))).json()
    await other.http("POST", CONFIG_MAPS, config_map("b"))
    async with watch(other, f"&resourceVersion={made['metadata']['resourceVersion']}") as watching:
        assert (await watching.next())["object"]["metadata"]["name"] == "b"


async def test_A20_pages_of_one_list_may_come_from_two_servers(servers: Pair) -> None:
    for number in range(5):
        await servers[0].http("POST", CONFIG_MAPS, config_map(f"c{number}"))
    first = (await servers[0].http("GET", f"{CONFIG_MAPS}?limit=2")).json()
    await servers[0].http("DELETE", f"{CONFIG_MAPS}/c4")
    rest = (await servers[1].http("GET", f"{CONFIG_MAPS}?continue={first['metadata']['continue']}")).json()
    assert [item["metadata"]["name"] for item in first["items"] + rest["items"]] == [f"c{n}" for n in range(5)]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def is_ready(server: RunningServer) -> bool:
    try:
        return (await server.http("GET", "/readyz", user=None)).status == 200
    except (OSError, asyncio.IncompleteReadError):
        return False


class Balancer:
    """Sends each request to the next server that was ready when it last looked.

    Where none is, it goes on with those that it had, as such things do: all servers are in one process here, and the
    start of one may hold up the others' answers beyond what their checks wait for.
    """

    def __init__(self, *servers: RunningServer) -> None:
        self.servers = list(servers)
        self._ready: list[RunningServer] = list(servers)
        self._turn = 0

    async def look(self) -> None:
        self._ready = [server for server in self.servers if await is_ready(server)] or self._ready

    async def create(self, name: str) -> int:
        self._turn += 1
        server = self._ready[self._turn % len(self._ready)]
        return (await server.http("POST", CONFIG_MAPS, config_map(name))).status


async def test_A54_servers_restarted_one_by_one_fail_no_request(member: EtcdMember) -> None:
    # Long enough for the balancer to notice, however busy the machine is: the four workers share its loop.
    options = {**over(member), "shutdown_delay_s": 3.0}
    statuses: Counter[int] = Counter()
    over_now = asyncio.Event()
    async with AsyncExitStack() as last, AsyncExitStack() as first:
        old = await first.enter_async_context(running_server(**options))
        staying = await last.enter_async_context(running_server(**options))
        balancer = Balancer(old, staying)

        async def work(worker: int) -> None:
            number = 0
            while not over_now.is_set():
                statuses[await balancer.create(f"w{worker}-{number}")] += 1
                number += 1

        async def look() -> None:
            while not over_now.is_set():
                await balancer.look()
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            for worker in range(4):
                group.create_task(work(worker))
            await first.aclose()
            balancer.servers.remove(old)
            balancer.servers.append(await last.enter_async_context(running_server(**options)))
            await balancer.look()
            over_now.set()
        stored = (await staying.http("GET", CONFIG_MAPS)).json()["items"]
    assert set(statuses) == {201}
    assert len(stored) == statuses[201]


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_G1_two_servers_give_no_address_and_no_port_to_two_services(member: EtcdMember) -> None:
    options = {**over(member), "service_cluster_ip_range": "10.0.0.0/28"}
    async with running_server(**options) as one, running_server(**options) as other:
        pair = (one, other)
        statuses: list[int] = []

        async def create(number: int) -> None:
            body = service(f"s{number}", type="NodePort")
            statuses.append((await pair[number % 2].http("POST", SERVICES, body)).status)

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(create(number))
        made = (await one.http("GET", SERVICES)).json()["items"]
        assert sorted(statuses) == [201] * 14 + [422] * 6
        assert len({item["spec"]["clusterIP"] for item in made}) == 14
        assert len({item["spec"]["ports"][0]["nodePort"] for item in made}) == 14
        # What is deleted at one server can be had at the other at once.
        gone = made[0]
        assert (await one.http("DELETE", f"{SERVICES}/{gone['metadata']['name']}")).status == 200
        wanted = service("again", clusterIP=gone["spec"]["clusterIP"])
        assert (await other.http("POST", SERVICES, wanted)).status == 201
