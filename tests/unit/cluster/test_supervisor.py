from __future__ import annotations

import pytest

from tiphys_cluster.child import ChildSpec
from tiphys_cluster.supervisor import STABLE_S, State, Supervisor


def spec(name: str = "api", *argv: str, stage: int = 1) -> ChildSpec:
    return ChildSpec(name=name, argv=argv, module="toy", stage=stage)


def running(*specs: ChildSpec) -> Supervisor:
    supervisor = Supervisor()
    for pid, child in enumerate(specs, start=100):
        assert supervisor.wants_start(child, 0.0)
        supervisor.started(child.name, pid, 0.0)
    return supervisor


def test_a_child_that_runs_is_not_started_again() -> None:
    supervisor = running(spec())

    assert not supervisor.wants_start(spec(), 1.0)
    assert supervisor.children[0].pid == 100


def test_first_death_restarts_at_once_and_later_ones_wait_twice_as_long() -> None:
    supervisor = running(spec())
    waits = []
    for now in range(1, 9):
        child = supervisor.exited(supervisor.children[0].pid, "exit code 1", now)
        assert child is not None
        waits.append(child.deadline - now)
        supervisor.started("api", 100 + now, now)

    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert supervisor.children[0].restarts == 8


def test_a_long_life_forgets_earlier_deaths() -> None:
    supervisor = running(spec())
    for now in (1.0, 2.0, 3.0):
        supervisor.exited(supervisor.children[0].pid, "", now)
        supervisor.started("api", int(100 + now), now)

    child = supervisor.exited(103, "", 3.0 + STABLE_S)

    assert child is not None
    assert child.deadline == 3.0 + STABLE_S


def test_due_starts_waits_for_the_deadline() -> None:
    supervisor = running(spec())
    supervisor.exited(100, "", 1.0)
    supervisor.started("api", 101, 1.0)
    supervisor.exited(101, "", 2.0)

    assert supervisor.next_deadline() == 2.25
    assert supervisor.due_starts(2.2) == []
    assert [child.spec.name for child in supervisor.due_starts(2.25)] == ["api"]


def test_a_changed_child_replaces_the_old_one_after_its_end() -> None:
    supervisor = running(spec("api", "--old"))

    assert not supervisor.wants_start(spec("api", "--new"), 1.0)
    supervisor.stop("api", 1.0)
    child = supervisor.exited(100, "", 1.5)

    assert child is not None
    assert child.state is State.BACKOFF
    assert child.spec.argv == ("--new",)
    assert supervisor.due_starts(1.5) == [child]


def test_a_stopped_child_stays_stopped_and_can_be_forgotten() -> None:
    supervisor = running(spec())
    supervisor.stop("api", 1.0)

    child = supervisor.exited(100, "exit code 0", 1.1)
    supervisor.forget("api")

    assert child is not None
    assert child.state is State.STOPPED
    assert supervisor.children == []


def test_a_child_that_ignores_the_stop_is_named_for_the_kill_each_second() -> None:
    supervisor = running(spec())
    supervisor.stop("api", 0.0)

    assert supervisor.due_kills(7.9) == []
    assert len(supervisor.due_kills(8.0)) == 1
    assert supervisor.due_kills(8.5) == []
    assert len(supervisor.due_kills(9.0)) == 1


def test_stop_of_a_waiting_child_ends_its_restarts() -> None:
    supervisor = running(spec())
    supervisor.exited(100, "", 1.0)

    assert supervisor.stop("api", 1.0) is None
    assert supervisor.due_starts(99.0) == []


@pytest.mark.parametrize("name", ["absent", ""], ids=["unknown", "empty"])
def test_stop_of_what_is_not_there_succeeds(name: str) -> None:
    assert running(spec()).stop(name, 0.0) is None


def test_exit_of_an_unknown_process_is_nobodys() -> None:
    supervisor = running(spec())

    assert supervisor.exited(4711, "", 0.0) is None
    assert supervisor.exited(0, "", 0.0) is None


def test_shutdown_stops_the_highest_stage_first() -> None:
    supervisor = running(spec("etcd", stage=1), spec("api", stage=3), spec("kubelet", stage=4), spec("proxy", stage=4))

    assert [child.spec.name for child in supervisor.next_stage()] == ["kubelet", "proxy"]
    for name, pid in (("kubelet", 102), ("proxy", 103)):
        supervisor.stop(name, 1.0)
        supervisor.exited(pid, "", 1.0)
    assert [child.spec.name for child in supervisor.next_stage()] == ["api"]


def test_an_adopted_child_is_known_with_its_restarts() -> None:
    supervisor = Supervisor()
    supervisor.adopted(spec(), 55, restarts=3, now=10.0)

    assert not supervisor.wants_start(spec(), 11.0)
    assert supervisor.children[0].restarts == 3
    assert supervisor.exited(55, "", 12.0) is supervisor.children[0]
