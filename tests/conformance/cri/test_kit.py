"""The kit on the runtime in memory, on a real containerd, and on runtimes that are broken on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.cri import served
from tests.support.containerd import ContainerdNode
from tiphys_component.clock import SystemClock
from tiphys_sdk.conformance.bench import Bench, Report
from tiphys_sdk.conformance.cri import kit


async def report_on(endpoint: str, **options: str) -> Report:
    bench = Bench(SystemClock())
    await kit.run(endpoint, bench, options)
    return bench.report


def failures(report: Report) -> dict[str, str]:
    return {step.name: step.message for step in report.failures}


async def test_L25_the_runtime_in_memory_passes(tmp_path: Path) -> None:
    # What a servicer leaves out is UNIMPLEMENTED; the stubs call it abstract.
    runtime = served.Served()  # type: ignore[abstract]
    async with served.serving(runtime, tmp_path) as endpoint:
        report = await report_on(endpoint)

    assert failures(report) == {}
    assert [step.name for step in report.steps if step.message] == []


@pytest.mark.containerd
async def test_L25_containerd_passes(containerd: ContainerdNode, tmp_path: Path) -> None:
    report = await report_on(containerd.endpoint, **{"log-dir": str(tmp_path)})

    assert failures(report) == {}
    assert [step.name for step in report.steps if step.message] == []


@pytest.mark.parametrize(
    ("broken", "step", "word"),
    [
        (served.WithoutNetwork, "status", "RuntimeReady"),
        (served.SecondStopFails, "sandbox stops twice", "sandbox is not running"),
        (served.ForgetsLabels, "sandbox runs", "the labels are {}"),
        (served.IgnoresFilters, "container listed", "other"),
        (served.UnknownIsInternal, "unknown container", "wanted NOT_FOUND, got UNKNOWN"),
        (served.NeverStops, "container stops twice", "does not become EXITED"),
        (served.LosesOutput, "command runs", "echo ended with 0: b''"),
        (served.AbsentImageIsAnError, "absent image", "NOT_FOUND"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_L25_a_broken_runtime_fails_at_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: type[served.Served], step: str, word: str
) -> None:
    monkeypatch.setattr(kit, "_EXIT_LOOKS", 3)
    async with served.serving(broken(), tmp_path) as endpoint:
        report = await report_on(endpoint)

    assert word in failures(report).get(step, ""), failures(report)
    assert next(s for s in report.steps if s.name == step).calls


async def test_nobody_at_the_socket_fails_the_first_step_and_ends(tmp_path: Path) -> None:
    report = await report_on(str(tmp_path / "absent.sock"))

    assert list(failures(report)) == ["version"]
    assert len(report.steps) == 1
