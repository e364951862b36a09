"""How the scheduler's service starts, in a process of its own and in one with others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.controller_manager.conftest import config_of
from tests.integration.scheduler.test_binding import USER, cluster, until
from tests.unit.scheduler.objects import pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_client import kubeconfig
from tiphys_client.transport import GrpcTransport
from tiphys_scheduler import main
from tiphys_scheduler.main import SchedulerService
from tiphys_scheduler.options import Options


@pytest.mark.parametrize(
    ("is_alone", "times"),
    [pytest.param(True, 1, id="a process of its own"), pytest.param(False, 0, id="a process with others")],
)
async def test_only_a_process_of_its_own_keeps_what_stays_from_the_collector(
    is_alone: bool, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet: list[str] = []
    monkeypatch.setattr(main, "quiet_collector", lambda: quiet.append("quiet"))
    async with cluster() as (server, client):
        await client.create(pod_message("p", cpu="1"))
        path = tmp_path / "kubeconfig"
        kubeconfig.write(path, config_of(server, USER), user=USER)
        options = Options(kubeconfig=path, secure_port=0, grpc_port=0, leader_elect=False)
        transport = None if is_alone else GrpcTransport(config_of(server, USER))
        task = asyncio.create_task(SchedulerService(options, transport=transport).run(), name="scheduler")

        async def is_bound() -> bool:
            return bool((await client.get(Pod, "p", "default")).spec.nodeName)

        try:
            await until(is_bound)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    assert len(quiet) == times
