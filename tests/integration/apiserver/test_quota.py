"""Quotas under many writers at once, over both doors of a real server."""

from __future__ import annotations

import asyncio

from tests.support.apiserver import RunningServer

QUOTAS = "/api/v1/namespaces/default/resourcequotas"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def test_I25_B27_64_creates_at_once_never_pass_the_quota(server: RunningServer) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "10"}}}
    made = (await server.http("POST", QUOTAS, quota)).json()
    made["status"] = {"hard": {"configmaps": "10"}, "used": {"configmaps": "0"}}
    await server.http("PUT", f"{QUOTAS}/q/status", made)
    answers: list[int] = []

    async def create(number: int) -> None:
        reply = await server.http("POST", CONFIG_MAPS, {"metadata": {"name": f"c{number}"}})
        answers.append(reply.status)
        if reply.status != 201:
            assert (
                "exceeded quota: q, requested: configmaps=1, used: configmaps=10, limited: configmaps=10"
                in (reply.json()["message"])
            )

    async with asyncio.TaskGroup() as group:
        for number in range(64):
            group.create_task(create(number), name=f"create {number}")
    assert sorted(answers) == [201] * 10 + [403] * 54
    assert (await server.http("GET", f"{QUOTAS}/q")).json()["status"]["used"] == {"configmaps": "10"}
    dry = await server.http("POST", f"{CONFIG_MAPS}?dryRun=All", {"metadata": {"name": "dry"}})
    assert dry.status == 403
