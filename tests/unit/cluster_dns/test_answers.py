"""Questions on real sockets: UDP and TCP, answers, refusals, what is too long, what is no question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from tests.unit.cluster_dns.test_zone import endpoint_slice, service, zone
from tiphys_cluster_dns.chain import Chain
from tiphys_cluster_dns.listener import Listener
from tiphys_cluster_dns.plugins.forward import Forward, resolv_conf_servers
from tiphys_cluster_dns.plugins.kubernetes import Kubernetes
from tiphys_cluster_dns.zone import Zone

LOCALHOST = "127.0.0.1"


@asynccontextmanager
async def serving(content: Zone, upstreams: list[tuple[str, int]] | None = None) -> AsyncIterator[int]:
    listener = Listener(LOCALHOST, 0, Chain((Kubernetes(content), Forward(upstreams or [], timeout_s=0.1))))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(listener.run())
        async with asyncio.timeout(5):
            while not listener.port:  # noqa: ASYNC110 - the port is known once it listens
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
        yield listener.port
        task.cancel()


async def ask(port: int, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    if tcp:
        return await dns.asyncquery.tcp(query, LOCALHOST, 2, port)
    return await dns.asyncquery.udp(query, LOCALHOST, 2, port)


async def test_answers_are_authoritative_over_udp_and_tcp() -> None:
    async with serving(zone((service(), []))) as port:
        for tcp in (False, True):
            found = await ask(port, "web.shop.svc.cluster.local", tcp=tcp)
            assert found.flags & dns.flags.AA
            assert [str(r) for r in found.answer[0]] == ["10.96.0.9"]


async def test_names_are_the_same_in_capitals() -> None:
    async with serving(zone((service(), []))) as port:
        assert (await ask(port, "WEB.Shop.svc.cluster.local")).answer


async def test_an_unknown_name_is_denied_with_the_zones_soa() -> None:
    async with serving(zone((service(), []))) as port:
        found = await ask(port, "nobody.shop.svc.cluster.local")
        assert found.rcode() == dns.rcode.NXDOMAIN
        assert found.authority[0].rdtype == dns.rdatatype.SOA


async def test_a_known_name_of_another_type_is_not_denied() -> None:
    async with serving(zone((service(), []))) as port:
        found = await ask(port, "web.shop.svc.cluster.local", "AAAA")
        assert (found.rcode(), found.answer) == (dns.rcode.NOERROR, [])


async def test_srv_records_bring_the_addresses_along() -> None:
    async with serving(zone((service(), []))) as port:
        found = await ask(port, "_http._tcp.web.shop.svc.cluster.local", "SRV")
        assert [str(r) for r in found.additional[0]] == ["10.96.0.9"]


async def test_an_answer_too_long_for_udp_is_cut_and_whole_over_tcp() -> None:
    pods = endpoint_slice(*(f"10.1.{i // 250}.{i % 250 + 1}" for i in range(300)))
    async with serving(zone((service(cluster_ip="None"), [pods]))) as port:
        name = "web.shop.svc.cluster.local"
        assert (await ask(port, name)).flags & dns.flags.TC
        assert len((await ask(port, name, tcp=True)).answer[0]) == 300


async def test_other_names_are_refused_without_upstream_and_forwarded_with_one() -> None:
    async with serving(zone((service(), []))) as upstream:
        async with serving(Zone("other.local")) as alone:
            assert (await ask(alone, "web.shop.svc.cluster.local")).rcode() == dns.rcode.REFUSED
        async with serving(Zone("other.local"), [(LOCALHOST, upstream)]) as port:
            assert (await ask(port, "web.shop.svc.cluster.local")).answer


async def test_a_dead_upstream_is_a_server_failure() -> None:
    async with serving(Zone("other.local"), [(LOCALHOST, 9)]) as port:
        assert (await ask(port, "example.com")).rcode() == dns.rcode.SERVFAIL


async def test_what_is_no_question_gets_a_format_error_or_nothing() -> None:
    listener = Listener(LOCALHOST, 0, Chain(()))
    answer = await listener.answer(b"\x12\x34\x01\x00" + b"\xff" * 20, over_udp=True)
    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.FORMERR
    assert await listener.answer(b"short", over_udp=True) is None
    response = dns.message.make_response(dns.message.make_query("a.", "A")).to_wire()
    assert await listener.answer(response, over_udp=True) is None


def test_resolv_conf_names_servers() -> None:
    assert resolv_conf_servers("# x\nnameserver 1.2.3.4\nsearch a\nnameserver ::1\n") == [("1.2.3.4", 53), ("::1", 53)]
