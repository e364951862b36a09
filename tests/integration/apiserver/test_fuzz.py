"""Thousands of requests that no friend would send: none is answered 500, none hangs, and the server stands.

A short run in `make test`, a long one in `make test-long`. What fails prints the request and the
seed, and goes on as a case of its own in test_bad_input or test_bad_clients once it is mended.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import chance
from tests.support.apiserver import Reply, RunningServer, read_reply, running_server
from tests.support.hostile import Hostile, dumps
from tests.support.ports import free_port
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Selector
from tiphys_apimachinery.scheme import ResourceInfo, load_default

# What a server may say of others behind it, which are not there; all else of 500 and more is a fault of its own.
_OF_OTHERS = (501, 502, 503, 504)
_HANGS_S = 30.0
_BODIES = (b"", b"{}", b"\xff\xfe", b"[", b"null", b"k8s\x00\x0a\x01")
_TYPES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/plain", "")
_METHODS = ("GET", "GET", "GET", "DELETE", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "LINK")


@dataclass(slots=True)
class Line:
    """One connection to the port without checks, opened anew when the server has closed it."""

    port: int
    _open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply | None:
        """The answer; None where the connection ends without one. Raises TimeoutError."""
        lines = {"Host": "x", "Content-Length": str(len(body)), **headers}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        for _ in range(2):
            if self._open is None:
                self._open = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
            reader, writer = self._open
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                writer.write(head.encode() + b"\r\n" + body)
                async with asyncio.timeout(_HANGS_S):
                    reply = await _read_head(reader) if method == "HEAD" else await read_reply(reader)
                if method == "HEAD" or reply.header("Connection") == ["close"] or reply.status == 101:
                    self.close()
                return reply
            self.close()
        return None

    def close(self) -> None:
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None


async def _read_head(reader: asyncio.StreamReader) -> Reply:
    return Reply(int((await reader.readuntil(b"\r\n\r\n")).split()[1]), [], b"")


@dataclass(slots=True)
class Attack:
    """One run: objects are made, changed and asked for, each a little wrong."""

    line: Line
    hostile: Hostile
    infos: list[ResourceInfo]
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    codes: Counter[int] = field(default_factory=Counter)

    async def strike(self) -> None:
        rng, hostile = self.hostile.rng, self.hostile
        info = rng.choice(self.infos)
        hostile.wrongness = rng.choice((0.0, 0.0, 0.01, 0.05))
        group = f"/apis/{info.group}" if info.group else "/api"
        scope = "/namespaces/default" if info.namespaced else ""
        place = f"{group}/{info.version}{scope}/{info.plural}"
        old = self.stored.get(place)
        choice = rng.random()
        if choice < 0.2:
            headers = {**hostile.headers(), "Content-Type": rng.choice(_TYPES)}
            body = rng.choice((*_BODIES, dumps(hostile.junk())))
            await self.send(rng.choice(_METHODS), f"{hostile.path(info)}?{hostile.query()}", body, headers)
        elif old is None or choice < 0.6:
            body = dumps(hostile.object(info, rng.choice("abcdef")))
            reply = await self.send("POST", place + rng.choice(("", "", "?dryRun=All")), body, _json())
            if reply is not None and reply.status == 201 and reply.json().get("metadata", {}).get("name"):
                self.stored[place] = reply.json()
        elif choice < 0.9:
            content_type, body = hostile.patch(old)
            target = f"{place}/{old['metadata']['name']}{rng.choice(('', '', '/status', '/scale'))}"
            force = "&force=true" if "apply" in content_type else ""
            await self.send("PATCH", f"{target}?fieldManager=x{force}", body, {"Content-Type": content_type})
        else:
            target = f"{place}/{old['metadata']['name']}{rng.choice(('', '/status'))}"
            await self.send("PUT", target, dumps(hostile.mutated(old)), _json())

    async def send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply | None:
        said = f"{method} {path[:500]} {headers}\n{body[:3000]!r}"
        try:
            reply = await self.line.send(method, path, body, headers)
        except TimeoutError:
            raise AssertionError(f"hangs: {said}") from None
        if reply is not None:
            self.codes[reply.status] += 1
            assert reply.status < 500 or reply.status in _OF_OTHERS, f"{reply.status}: {said}\n{reply.body[:1000]!r}"
        return reply


def _json() -> dict[str, str]:
    return {"Content-Type": "application/json"}


async def attack(server_port: int, seed: int, strikes: int) -> Counter[int]:
    infos = [info for info in load_default().resources() if info.plural != "namespaces"]
    run = Attack(Line(server_port), Hostile(random.Random(seed)), infos)
    try:
        for _ in range(strikes):
            await run.strike()
    except AssertionError as err:
        raise AssertionError(f"seed {seed}: {err}") from None
    finally:
        run.line.close()
    return run.codes


async def healthy(server: RunningServer) -> None:
    assert (await server.http("GET", "/readyz")).status == 200


async def test_hostile_requests_get_an_answer_and_never_500() -> None:
    port = free_port()
    async with running_server(insecure_port=port) as server:
        codes = await attack(port, chance.rng("hostile requests").randrange(1 << 32), 1500)
        await healthy(server)
    # They reach what they are meant for: some are taken, some are found invalid, some can't be read.
    assert min(codes[201], codes[422], codes[400], codes[404]) > 20, codes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
async def test_hostile_requests_get_an_answer_and_never_500_in_a_long_run(seed: int) -> None:
    port = free_port()
    async with running_server(insecure_port=port) as server:
        await attack(port, seed, 10_000)
        await healthy(server)


_SELECTOR_TEXT = st.text("ab=!,() innot.exs/-_01\x00é", max_size=40)


@given(text=_SELECTOR_TEXT)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_A21_any_text_is_a_selector_or_is_refused(text: str) -> None:
    for read in (Selector.parse, FieldSelector.parse):
        with suppress(APIError, ValueError):
            read(text)
