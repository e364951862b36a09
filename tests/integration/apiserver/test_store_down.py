"""A store that goes away and comes back: what can be read is read, the rest is told, and nobody restarts anything."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import orjson
import pytest

from tests.support.apiserver import Reply, RunningServer, read_chunks, running_server
from tests.support.etcd import EtcdMember
from tiphys.apiserver.v1 import wire_pb2

MAPS = "/api/v1/namespaces/default/configmaps"
# Back-offs and gRPC's own reconnecting take seconds, on a loaded machine more.
_PATIENCE_S = 90.0


@pytest.fixture
def member(tmp_path: Path) -> Iterator[EtcdMember]:
    member = EtcdMember(tmp_path)
    member.start()
    yield member
    member.kill()


async def until(server: RunningServer, method: str, path: str, body: object, code: int) -> Reply:
    """The first answer with this code; until then only 503 may come."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            reply = await server.http(method, path, body)
            if reply.status == code:
                return reply
            assert reply.status in (503, 504), reply.body
            await asyncio.sleep(0.1)


@pytest.mark.etcd
async def test_without_etcd_the_cache_is_read_and_all_else_is_told_503(member: EtcdMember) -> None:
    async with running_server(store="etcd", etcd_servers=(f"http://{member.endpoint}",)) as server:
        assert (await server.http("POST", MAPS, {"metadata": {"name": "a"}})).status == 201
        reader, writer = await server.connect()
        writer.write(f"GET {MAPS}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        chunks = read_chunks(reader)
        member.kill()
        # What may be old is read, and who may read is known.
        assert (await server.http("GET", f"{MAPS}/a?resourceVersion=0")).json()["metadata"]["name"] == "a"
        assert [
            one["metadata"]["name"] for one in (await server.http("GET", f"{MAPS}?resourceVersion=0")).json()["items"]
        ] == ["a"]
        assert (await server.http("GET", f"{MAPS}?resourceVersion=0", user="alice")).status == 403
        # What must be true now is not made up, and nothing is said to be written.
        for method, path, body in (
            ("GET", MAPS, None),
            ("GET", f"{MAPS}/a", None),
            ("POST", MAPS, {"metadata": {"name": "b"}}),
            ("DELETE", f"{MAPS}/a", None),
        ):
            reply = await until(server, method, path, body, 503)
            assert reply.json()["reason"] == "ServiceUnavailable", reply.body
            assert reply.json()["message"]
        create = wire_pb2.GetRequest(namespace="default", name="a")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.grpc("core.v1.ConfigMapService", "Get", create)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        member.start()
        await until(server, "GET", f"{MAPS}/a", None, 200)
        await until(server, "POST", MAPS, {"metadata": {"name": "c"}}, 201)
        names: list[str] = []
        async with asyncio.timeout(_PATIENCE_S):
            while "c" not in names:
                events = (orjson.loads(line) for line in (await anext(chunks)).splitlines())
                names += [event["object"]["metadata"]["name"] for event in events]
        # One watch through it all: nothing lost, nothing twice.
        assert names in (["a", "c"], ["a", "b", "c"])
        writer.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_refuses_writes_serves_reads_and_heals_by_itself(small_disk: Path) -> None:
    async with running_server(store="sqlite", store_file=small_disk / "store.db") as server:
        stored = []
        refused = None
        for number in range(100):
            body = {"metadata": {"name": f"c{number}"}, "data": {"t": "x" * 200_000}}
            reply = await server.http("POST", MAPS, body)
            if reply.status != 201:
                refused = reply
                break
            stored.append(f"c{number}")
        assert refused is not None
        assert (refused.status, refused.json()["reason"]) == (503, "ServiceUnavailable"), refused.body
        assert "free space" in refused.json()["message"]
        for path in (MAPS, f"{MAPS}?resourceVersion=0"):
            listed = await server.http("GET", path)
            assert listed.status == 200
            assert sorted(item["metadata"]["name"] for item in listed.json()["items"]) == sorted(stored)
        subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
        await until(server, "POST", MAPS, {"metadata": {"name": "after"}}, 201)
        assert (await server.http("GET", "/readyz")).status == 200
