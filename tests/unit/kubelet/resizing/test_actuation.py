"""The order in which the kernel is told of a resize."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.kubelet.builders import EXITED, box, run, seen
from tests.unit.kubelet.resizing.builders import MI, pod_of, pod_with, seen_with
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.resizing.actuation import SetPodLimits, Step, StopForResize, UpdateContainer, plan_steps
from tiphys_kubelet.runtime.limits import Limits, pod_limits


def words(step: Step) -> str:
    match step:
        case StopForResize(target):
            return f"stop {target.name}"
        case SetPodLimits(limits):
            return f"pod {limits.cpu_quota} {limits.memory_bytes // MI}"
        case UpdateContainer(target, resource, limits):
            return f"{target.name} {resource} {limits.cpu_quota if resource == 'cpu' else limits.memory_bytes // MI}"


def plan(new: Pod, has: dict[str, str], *, group: bool = True) -> list[str]:
    before = pod_with(has)
    return [words(s) for s in plan_steps(new, seen_with(new, has), pod_limits(before) if group else None)]


SMALL, LARGE = "1 64Mi / 1 64Mi", "2 128Mi / 2 128Mi"


@pytest.mark.parametrize(
    ("wanted", "has", "steps"),
    [
        pytest.param({"a": SMALL}, {"a": SMALL}, [], id="nothing to do"),
        pytest.param(
            {"a": LARGE},
            {"a": SMALL},
            ["pod 100000 128", "a memory 128", "pod 200000 128", "a cpu 200000"],
            id="grow: the pod first",
        ),
        pytest.param(
            {"a": SMALL},
            {"a": LARGE},
            ["a memory 64", "pod 200000 64", "a cpu 100000", "pod 100000 64"],
            id="shrink: the containers first",
        ),
        pytest.param(
            {"a": LARGE, "b": SMALL},
            {"a": SMALL, "b": LARGE},
            ["a memory 128", "b memory 64", "a cpu 200000", "b cpu 100000"],
            id="the pod as a whole keeps what it has",
        ),
        pytest.param(
            {"a": "2 64Mi / 2 64Mi"}, {"a": SMALL}, ["pod 200000 64", "a cpu 200000"], id="one resource alone"
        ),
        pytest.param(
            {"a": "2 64Mi / 2 64Mi", "b": "1 -"},
            {"a": SMALL, "b": "1 -"},
            ["pod 0 0", "a cpu 200000"],
            id="a pod without a limit has more weight",
        ),
    ],
)
def test_B32_the_pod_grows_before_its_containers_and_shrinks_after_them(
    wanted: dict[str, str], has: dict[str, str], steps: list[str]
) -> None:
    assert plan(pod_with(wanted), has) == steps


def test_B32_without_a_group_of_our_own_only_containers_are_told() -> None:
    assert plan(pod_of(a=LARGE), {"a": SMALL}, group=False) == ["a memory 128", "a cpu 200000"]


@pytest.mark.parametrize(
    ("restart", "steps"),
    [
        pytest.param("memory", ["stop a", "pod 100000 128", "pod 200000 128"], id="of what changes"),
        pytest.param("cpu", ["stop a", "pod 100000 128", "pod 200000 128"], id="of one of two that change"),
    ],
)
def test_D34_a_container_whose_policy_says_so_is_stopped(restart: str, steps: list[str]) -> None:
    assert plan(pod_of(a=LARGE, restart=restart), {"a": SMALL}) == steps


def test_D34_a_policy_for_what_does_not_change_stops_nothing() -> None:
    assert plan(pod_of(a="2 64Mi / 2 64Mi", restart="memory"), {"a": SMALL}) == ["pod 200000 64", "a cpu 200000"]


def test_B32_what_does_not_run_is_not_told() -> None:
    pod = pod_of(a=LARGE)
    ended = replace(run(pod, "a", EXITED), limits=Limits())
    assert plan_steps(pod, seen(box(), ended), None) == ()


def test_B32_what_nobody_knows_of_is_left_alone() -> None:
    pod = pod_of(a=LARGE)
    unknown = seen_with(pod, {})
    blind = replace(unknown, containers=tuple(replace(c, limits=None) for c in unknown.containers))
    assert plan_steps(pod, blind, None) == ()
