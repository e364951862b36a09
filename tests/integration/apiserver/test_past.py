"""Lists at a past moment: /revisions tells the revision, and an exact list the objects."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from tests.support.apiserver import RunningServer, running_server

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def at(server: RunningServer, moment: datetime, **more: Any) -> Any:
    return await server.http("GET", f"/revisions?at={quote(moment.isoformat())}", **more)


async def noted(server: RunningServer) -> datetime:
    """A moment of which the server knows that it was as it is now."""
    version = (await server.http("GET", CONFIG_MAPS)).json()["metadata"]["resourceVersion"]
    async with asyncio.timeout(60):
        while True:
            moment = datetime.now(UTC)
            answer = await at(server, moment)
            if answer.status == 200 and int(answer.json()["resourceVersion"]) >= int(version):
                return moment
            await asyncio.sleep(0.05)


async def test_A57_list_at_a_past_moment_equals_a_snapshot_taken_then() -> None:
    async with running_server() as server:
        for number in range(5):
            await server.http("POST", CONFIG_MAPS, {"metadata": {"name": f"c{number}"}, "data": {"n": "old"}})
        moment = await noted(server)
        snapshot = (await server.http("GET", CONFIG_MAPS)).json()["items"]
        await server.http("DELETE", f"{CONFIG_MAPS}/c1")
        await server.http("PUT", f"{CONFIG_MAPS}/c2", {"metadata": {"name": "c2"}, "data": {"n": "new"}})
        await noted(server)
        revision = (await at(server, moment)).json()["resourceVersion"]
        past = await server.http("GET", f"{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")
        assert past.json()["items"] == snapshot
        assert (await server.http("GET", CONFIG_MAPS)).json()["items"] != snapshot


async def test_A57_moments_that_nobody_knows_are_refused_and_strangers_too() -> None:
    async with running_server() as server:
        await noted(server)
        now = datetime.now(UTC)
        long_ago = await at(server, now - timedelta(days=1))
        assert (long_ago.status, long_ago.json()["reason"]) == (410, "Expired")
        assert (await at(server, now + timedelta(hours=1))).status == 400
        unreadable = await server.http("GET", "/revisions?at=yesterday")
        assert unreadable.status == 400
        assert "'yesterday' is no moment" in unreadable.json()["message"]
        assert (await at(server, now, user="alice")).status == 403
