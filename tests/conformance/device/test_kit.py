"""The kit for device plugins passes on sound ones, and names for each broken one the step that it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.device import broken
from tests.support.devices import ToyPlugin, serving, short_folder
from tests.support.kubelet import wait_until
from tiphys_component.clock import SystemClock
from tiphys_device.generic import GenericPlugin, parse_config
from tiphys_device.simulated import SimulatedPlugin, parse_simulation
from tiphys_sdk.conformance.bench import Bench, Report
from tiphys_sdk.conformance.device import kit
from tiphys_sdk.device.plugin import DevicePlugin


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


async def judged(endpoint: str, **options: str) -> Report:
    bench = Bench(SystemClock())
    await kit.run(endpoint, bench, {"limit": "1"} | options)
    return bench.report


def failures(report: Report) -> dict[str, str]:
    return {step.name: step.message for step in report.failures}


async def test_L25_a_plugin_written_by_hand_passes(folder: Path) -> None:
    async with broken.served(broken.SoundPlugin(), folder) as endpoint:
        report = await judged(endpoint, resource=broken.RESOURCE)
    assert failures(report) == {}
    assert all(step.outcome == "passed" for step in report.steps)


def make_generic(folder: Path) -> DevicePlugin:
    (folder / "tty0").touch()
    return GenericPlugin(parse_config(f"resources: [{{name: a.b/c, devices: [{{glob: {folder}/tty*}}]}}]")[0])


def make_simulated(folder: Path) -> DevicePlugin:
    return SimulatedPlugin(parse_simulation("gpu:8"), folder / "state")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: ToyPlugin(), id="sdk"),
        pytest.param(make_simulated, id="simulated"),
        pytest.param(make_generic, id="generic"),
    ],
)
async def test_L25_our_plugins_pass(folder: Path, make: Callable[[Path], DevicePlugin]) -> None:
    plugin = make(folder)
    async with serving(plugin, folder) as server:
        await wait_until(server.socket.exists)
        report = await judged(str(server.socket), resource=plugin.resource)
    assert report.passed, failures(report)


@pytest.mark.parametrize(
    ("plugin", "step"),
    [
        (broken.NeverRegisters, "register"),
        (broken.WrongVersion, "register"),
        (broken.WrongResource, "register"),
        (broken.ForgetsRestartedKubelets, "register again"),
        (broken.DuplicateIds, "unique ids"),
        (broken.EmptyForEver, "first list"),
        (broken.HangsInList, "first list"),
        (broken.DiesInList, "stream stays open"),
        (broken.ListsWithoutEnd, "stream stays open"),
        (broken.OneStreamOnly, "two lists"),
        (broken.StrangeHealth, "health"),
        (broken.PrefersTooMany, "prefer"),
        (broken.HangsInAllocate, "allocate"),
        (broken.RelativePaths, "allocate"),
        (broken.CountsAllocations, "allocate twice"),
        (broken.OneAnswerForTwo, "allocate for two"),
        (broken.AllocatesAnything, "allocate an unknown id"),
        (broken.PreStartsOnce, "pre-start"),
        (broken.LosesAllocated, "still alive"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else value.replace(" ", "-"),
)
async def test_L25_a_broken_plugin_fails_at_the_step_it_breaks(
    folder: Path, plugin: type[broken.SoundPlugin], step: str
) -> None:
    async with broken.served(plugin(), folder) as endpoint:
        report = await judged(endpoint, limit="0.3")
    failed = failures(report)
    assert next(iter(failed)) == step, failed
    named = next(found for found in report.steps if found.name == step)
    assert named.calls, "the failing step shows no call"


async def test_a_socket_without_a_plugin_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="nobody listens"):
        await judged(str(folder / "none.sock"))
