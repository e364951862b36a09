"""The kit passes on our driver, and names what is wrong with drivers that are broken on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conformance.csi import broken
from tiphys_component.clock import SystemClock
from tiphys_component.inotify import FolderWatch
from tiphys_csi.hostpath.controller import AttachingController, HostPathController
from tiphys_csi.hostpath.node import HostPathNode
from tiphys_sdk.conformance.bench import Bench, Outcome, Report
from tiphys_sdk.conformance.csi.kit import run
from tiphys_sdk.csi.driver import Driver
from tiphys_sdk.csi.server import DriverServer

pytestmark = pytest.mark.netns


@asynccontextmanager
async def served(driver: Driver, folder: Path, server: type[DriverServer] = DriverServer) -> AsyncIterator[str]:
    path = folder / "csi.sock"
    task = asyncio.create_task(server(driver, f"unix://{path}").run(), name="driver")
    try:
        async with asyncio.timeout(5):
            await _wait_for(path)
        yield f"unix://{path}"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _wait_for(path: Path) -> None:
    with FolderWatch(path.parent) as watch:
        while not path.exists():  # noqa: ASYNC240  # one look
            await watch.wait()


async def report_of(driver: Driver, folder: Path, server: type[DriverServer] = DriverServer) -> Report:
    bench = Bench(SystemClock())
    async with served(driver, folder, server) as endpoint:
        await run(endpoint, bench, {"dir": str(folder)})
    return bench.report


@pytest.mark.parametrize("controller", [HostPathController, AttachingController])
async def test_E25_hostpath_passes_with_every_call_made_twice(controller: type[HostPathController]) -> None:
    with TemporaryDirectory(prefix="tcsi", dir="/tmp") as folder:
        report = await report_of(broken.make(Path(folder), controller), Path(folder))
        assert not [f"{step.name}: {step.message}" for step in report.failures]
        assert report.passed
        skipped = {step.name for step in report.steps if step.outcome is Outcome.SKIPPED}
        attaching = {step.name for step in report.steps if step.name.startswith(("attach", "detach"))}
        assert skipped == (set() if controller is AttachingController else attaching)
        assert not list((Path(folder) / "volumes").iterdir())


@pytest.mark.parametrize(
    ("controller", "node", "step"),
    [
        (broken.ANewVolumeEachTime, HostPathNode, "create volume: twice"),
        (broken.AnySizeWillDo, HostPathNode, "create volume: same name, other size"),
        (broken.DeletesOnce, HostPathNode, "delete volume: twice"),
        (broken.OnePageForEver, HostPathNode, "list volumes: pages"),
        (broken.Shrinks, HostPathNode, "expand volume: twice"),
        (broken.SnapshotsOfAnyVolume, HostPathNode, "create snapshot: same name, other volume"),
        (broken.AttachesAnywhere, HostPathNode, "attach: unknown volume or node"),
        (HostPathController, broken.InternalForUnknown, "node: unknown volume"),
        (HostPathController, broken.LeavesTheTarget, "unpublish: twice"),
        (HostPathController, broken.AlwaysWritable, "publish: read-only"),
        (HostPathController, broken.UnstagesOnce, "unstage: twice"),
        (HostPathController, broken.Nameless, "node: info"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_broken_driver_fails_at_the_named_step(
    controller: type[HostPathController], node: type[HostPathNode], step: str
) -> None:
    with TemporaryDirectory(prefix="tcsi", dir="/tmp") as folder:
        report = await report_of(broken.make(Path(folder), controller, node), Path(folder))
    failed = {one.name: one for one in report.failures}
    assert step in failed
    assert failed[step].message
    assert failed[step].calls, "a failing step shows the calls made in it"


async def test_driver_without_checks_fails_at_every_step_on_missing_fields() -> None:
    with TemporaryDirectory(prefix="tcsi", dir="/tmp") as folder:
        report = await report_of(broken.make(Path(folder)), Path(folder), broken.Unchecked)
    failed = {one.name for one in report.failures}
    assert {"delete volume: missing id", "expand volume: missing fields", "publish: missing fields"} <= failed


async def test_socket_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no socket"):
        await run("unix:///tmp/no-such.sock", Bench(SystemClock()), {})
