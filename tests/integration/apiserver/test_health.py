"""What probes and people who look after a server are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import Reply, RunningServer, running_server
from tests.support.etcd import EtcdMember

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def member(tmp_path: Path) -> Iterator[EtcdMember]:
    member = EtcdMember(tmp_path)
    member.start()
    yield member
    member.kill()


async def test_J11_health_is_told_in_one_word_or_check_by_check(server: RunningServer) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/healthz/ping", "/livez/ping", "/readyz/etcd"):
        # Probes show no credentials.
        reply = await server.http("GET", path, user=None)
        assert (reply.status, reply.body) == (200, b"ok"), path
    text = (await server.http("GET", "/readyz?verbose")).body.decode()
    assert text.splitlines() == [
        "[+]ping ok",
        "[+]etcd ok",
        "[+]poststarthook/bootstrap ok",
        "[+]shutdown ok",
        "readyz check passed",
    ]
    text = (await server.http("GET", "/readyz?verbose&exclude=etcd&exclude=ping&exclude=other")).body.decode()
    assert text.splitlines() == [
        "[+]ping excluded: ok",
        "[+]etcd excluded: ok",
        "[+]poststarthook/bootstrap ok",
        "[+]shutdown ok",
        'warn: some health checks cannot be excluded: no matches for "other"',
        "readyz check passed",
    ]
    assert (await server.http("GET", "/readyz/other")).status == 404


@pytest.mark.etcd
async def test_J11_readyz_names_etcd_while_it_is_stopped(member: EtcdMember) -> None:
    async with running_server(store="etcd", etcd_servers=(f"http://{member.endpoint}",)) as server:
        assert (await server.http("GET", "/readyz")).status == 200
        member.kill()
        reply = await until(server, "/readyz", 500)
        assert "[-]etcd failed: reason withheld" in reply.body.decode()
        assert reply.body.decode().endswith("readyz check failed\n")
        assert (await server.http("GET", "/readyz/etcd")).status == 500
        assert (await server.http("GET", "/readyz?exclude=etcd")).status == 200
        # A restart of the server would mend nothing.
        assert (await server.http("GET", "/livez")).status == 200
        member.start()
        await until(server, "/readyz", 200)
        assert (await server.http("POST", MAPS, {"metadata": {"name": "after"}})).status == 201


async def until(server: RunningServer, path: str, code: int) -> Reply:
    """The first answer with this code."""
    async with asyncio.timeout(60):
        while True:
            reply = await server.http("GET", path)
            if reply.status == code:
                return reply
            await asyncio.sleep(0.1)


async def test_J12_statusz_and_flagz_are_text_for_those_who_may(server: RunningServer) -> None:
    status = await server.http("GET", "/statusz")
    assert (status.status, status.header("Content-Type")) == (200, ["text/plain; charset=utf-8"])
    assert "kube-apiserver statusz" in status.body.decode()
    assert "readyz: /readyz" in status.body.decode()
    flags = (await server.http("GET", "/flagz")).body.decode()
    assert "kube-apiserver flagz" in flags
    assert "authorization-mode=Node,RBAC\n" in flags
    assert "store=memory\n" in flags
    for path in ("/statusz", "/flagz"):
        assert (await server.http("GET", path, user="alice")).status == 403
        assert (await server.http("GET", path, user=None)).status == 403
