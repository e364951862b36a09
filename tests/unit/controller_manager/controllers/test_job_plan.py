"""What Jobs decide by: sets of indexes, policies, the back-off; and that no order of events breaks their invariants."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.controller_manager.controllers.jobs import job
from tests.unit.controller_manager.controllers.test_replicaset import view
from tiphys.api.batch.v1 import batch_pb2
from tiphys_apimachinery.meta import to_time
from tiphys_component.clock import FakeClock
from tiphys_controller_manager.controllers.job.backoff import Record, remaining
from tiphys_controller_manager.controllers.job.counting import Tally, announce, clear_counted, count_pods, finish
from tiphys_controller_manager.controllers.job.indexes import Indexes, parse_indexes
from tiphys_controller_manager.controllers.job.plan import plan_pods, reached
from tiphys_controller_manager.controllers.job.policies import rule_on, success_message
from tiphys_controller_manager.controllers.job.verdict import REACHED, assess, is_finished
from tiphys_controller_manager.job_facts import TRACKING_FINALIZER, Exit, JobFacts
from tiphys_controller_manager.pods import Owner, PodView

NOW = 1_000_000.0
some_indexes = st.sets(st.integers(0, 60), max_size=40)


def pod(name: str, *, phase: str = "Running", index: int | None = None, **facts: Any) -> PodView:
    known = {key: facts.pop(key) for key in ("exits", "conditions", "ended", "index_failures") if key in facts}
    values = {"finalizers": (TRACKING_FINALIZER,), "controller": Owner("batch/v1", "Job", "pi", "u"), **facts}
    return view(name, phase=phase, job=JobFacts(index=index, **known), **values)


@pytest.mark.parametrize(
    ("text", "limit", "again"),
    [
        pytest.param("", 9, "", id="nothing"),
        pytest.param("0,1", 9, "0,1", id="two neighbours"),
        pytest.param("0,1,2,5", 9, "0-2,5", id="a row becomes a range"),
        pytest.param("1,3-5,7", 5, "1,3,4", id="cut at the limit"),
        pytest.param("5-7,1-5", 9, "1-7", id="out of order"),
        pytest.param("x,2,3-,-4,5-y", 9, "2,3", id="rubbish is left out"),
        pytest.param("7-3,٣", 9, "", id="a range backwards, a digit that is not ASCII"),
    ],
)
def test_B21_indexes_are_read_and_written_as_ranges(text: str, limit: int, again: str) -> None:
    assert str(parse_indexes(text, limit)) == again


@given(some_indexes, some_indexes, st.integers(0, 20), st.integers(0, 70))
def test_B21_sets_of_indexes_are_sets(one: set[int], two: set[int], count: int, limit: int) -> None:
    first, second = Indexes().with_indexes(one), Indexes().with_indexes(two)
    assert parse_indexes(str(first), 100) == first
    assert len(first) == len(one)
    assert all((index in first) == (index in one) for index in range(-1, 62))
    assert first | second == Indexes().with_indexes(one | two)
    assert first.overlap(second) == len(one & two)
    free = [index for index in range(limit) if index not in one]
    assert first.first_free(count, limit) == free[:count]


@pytest.mark.parametrize(
    ("failures", "ago", "left"),
    [
        pytest.param(0, 0.0, 0.0, id="no failure"),
        pytest.param(1, 0.0, 10.0, id="the first"),
        pytest.param(3, 0.0, 40.0, id="doubled each time"),
        pytest.param(6, 0.0, 320.0, id="the sixth"),
        pytest.param(7, 0.0, 360.0, id="at most six minutes"),
        pytest.param(5000, 0.0, 360.0, id="a great many"),
        pytest.param(2, 15.0, 5.0, id="the time that has passed is taken off"),
        pytest.param(2, 1e6, 0.0, id="long past"),
        pytest.param(2, -1e6, 20.0, id="the clock was set back"),
    ],
)
def test_B18_the_back_off_doubles(failures: int, ago: float, left: float) -> None:
    assert remaining(failures, NOW - ago, NOW) == left


def test_B18_a_success_wipes_out_the_failures_before_it() -> None:
    early, late = pod("a", ended=NOW - 30), pod("c", ended=NOW - 10)
    good = pod("b", ended=NOW - 20)
    assert Record(4, NOW - 40).after([], [early]) == Record(5, NOW - 30)
    assert Record(4, NOW - 40).after([good], [early, late]) == Record(1, NOW - 10)
    assert Record(4, NOW - 40).after([good], [early]) == Record()
    assert Record(4, NOW - 40).after([], []) == Record(4, NOW - 40)


def test_B18_a_failure_that_another_clock_has_still_to_come_delays_only_once() -> None:
    record = Record().after([], [pod("a", ended=NOW + 3600)]).seen_at(NOW)
    assert [record.seen_at(NOW + passed).remaining(NOW + passed) for passed in (0.0, 4.0, 10.0)] == [10.0, 6.0, 0.0]


@pytest.mark.parametrize(
    ("looks", "began"),
    [
        pytest.param([NOW, NOW + 4, NOW + 10], NOW, id="first seen"),
        pytest.param([NOW, NOW + 4000], NOW, id="also when the moment has come"),
        pytest.param([NOW + 4000], NOW + 3600, id="never ahead"),
        pytest.param([NOW, NOW - 500], NOW - 500, id="the clock is set back once more"),
    ],
)
def test_B18_an_index_waits_from_when_an_end_still_to_come_was_first_seen(looks: list[float], began: float) -> None:
    record, ended = Record(), pod("a", ended=NOW + 3600)
    for now in looks:
        # A failure of another index changes nothing.
        record = record.after([], [pod("b", ended=now)]).seen_at(now, [ended])
    assert record.ended(ended) == began
    # What waits no longer is forgotten.
    assert not record.seen_at(looks[-1], []).ahead


@pytest.mark.parametrize(
    ("began", "ended", "said"),
    [
        pytest.param(NOW, NOW + 5, NOW + 5, id="as the clock says"),
        pytest.param(NOW, NOW, NOW, id="at once"),
        pytest.param(NOW + 3600, NOW, NOW + 3600, id="the clock was set back"),
        pytest.param(NOW + 0.5, NOW + 0.25, NOW + 0.5, id="set back by less than a second"),
    ],
)
def test_B18_no_job_is_completed_before_it_began(began: float, ended: float, said: float) -> None:
    status = batch_pb2.JobStatus(startTime=to_time(_moment(began)))
    assert finish(status, REACHED, _moment(ended))
    assert status.completionTime == to_time(_moment(said))


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _rule(action: str, operator: str, *values: int, container: str = "") -> dict[str, Any]:
    wanted: dict[str, Any] = {"operator": operator, "values": list(values)}
    if container:
        wanted["containerName"] = container
    return {"action": action, "onExitCodes": wanted}


@pytest.mark.parametrize(
    ("rules", "facts", "action"),
    [
        pytest.param([], {}, "Count", id="no rule"),
        pytest.param([_rule("FailJob", "In", 1, 2)], {"exits": (Exit("c", 2),)}, "FailJob", id="a code that is listed"),
        pytest.param([_rule("FailJob", "In", 1)], {"exits": (Exit("c", 2),)}, "Count", id="a code that is not"),
        pytest.param([_rule("Ignore", "NotIn", 1)], {"exits": (Exit("c", 2),)}, "Ignore", id="not in the list"),
        pytest.param([_rule("Ignore", "NotIn", 1)], {"exits": (Exit("c", 0),)}, "Count", id="success is no failure"),
        pytest.param(
            [_rule("FailJob", "In", 2, container="d")], {"exits": (Exit("c", 2),)}, "Count", id="another container"
        ),
        pytest.param(
            [_rule("FailJob", "In", 2)],
            {"exits": (Exit("c", 0), Exit("i", 2, True))},
            "FailJob",
            id="an init container",
        ),
        pytest.param(
            [_rule("Count", "In", 2), _rule("FailJob", "In", 2)], {"exits": (Exit("c", 2),)}, "Count", id="first wins"
        ),
        pytest.param(
            [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}],
            {"conditions": (("DisruptionTarget", "True"),)},
            "Ignore",
            id="a condition",
        ),
        pytest.param(
            [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}],
            {"conditions": (("DisruptionTarget", "False"),)},
            "Count",
            id="a condition that is false",
        ),
    ],
)
def test_B21_rules_on_failed_pods(rules: list[Any], facts: dict[str, Any], action: str) -> None:
    spec = job(podFailurePolicy={"rules": rules}).spec
    assert rule_on(spec, pod("p", phase="Failed", **facts)).action == action


@pytest.mark.parametrize(
    ("rule", "done", "holds"),
    [
        pytest.param({"succeededIndexes": "0,2-3"}, {0, 2, 3, 5}, True, id="all of them"),
        pytest.param({"succeededIndexes": "0,2-3"}, {0, 2, 5}, False, id="one is missing"),
        pytest.param({"succeededIndexes": "0,2-3", "succeededCount": 2}, {0, 3}, True, id="so many of them"),
        pytest.param({"succeededIndexes": "0,2-3", "succeededCount": 2}, {0, 5, 6}, False, id="too few of them"),
        pytest.param({"succeededCount": 2}, {5, 6}, True, id="so many of any"),
        pytest.param({"succeededCount": 1}, set(), False, id="none yet"),
        pytest.param({"succeededIndexes": "90"}, {1}, False, id="an index that the Job does not have"),
    ],
)
def test_B21_when_indexes_suffice(rule: dict[str, Any], done: set[int], holds: bool) -> None:
    spec = job(completionMode="Indexed", completions=10, successPolicy={"rules": [rule]}).spec
    found = success_message(spec, Indexes().with_indexes(done))
    assert found == ("Matched rules at index 0" if holds else "")


# One step of a made-up cluster: what happens to the pod at this place among those that live.
events = st.lists(
    st.tuples(st.sampled_from(["succeed", "fail", "delete", "vanish", "crash"]), st.integers(0, 9)), max_size=40
)


class Cluster:
    """A Job and its pods, driven by the pure parts alone, in the order in which the controller uses them."""

    def __init__(self, made: batch_pb2.Job) -> None:
        self.job = made
        self.pods: dict[str, PodView] = {}
        self.made = 0
        self.succeeded: set[str] = set()
        self.now = NOW

    def happen(self, what: str, place: int) -> None:
        """Something befalls a pod."""
        alive = [item for item in self.pods.values() if item.is_active]
        if not alive:
            return
        item = alive[place % len(alive)]
        if what == "succeed":
            self.succeeded.add(item.uid)
        if what == "vanish":
            # Taken by force; the finalizer still holds it.
            self.pods[item.uid] = replace(item, is_deleting=True)
        elif what == "delete":
            self.pods[item.uid] = replace(item, is_deleting=True, phase="Failed")
        else:
            phase = "Succeeded" if what == "succeed" else "Failed"
            self.pods[item.uid] = replace(item, phase=phase)

    def step(self, *, crashes: bool = False) -> None:
        """One reconciliation; a crash comes after the uids were written and before any finalizer went."""
        self.now += 1000.0
        pods = list(self.pods.values())
        standing = assess(self.job, pods, now=self.now)
        verdict, active = standing.verdict, list(standing.active)
        if verdict is not None:
            for item in active:
                self.pods[item.uid] = replace(item, is_deleting=True, phase="Failed")
            active = []
        else:
            change = plan_pods(self.job, standing, Record(), now=self.now)
            for item in change.delete:
                del self.pods[item.uid]
                active.remove(item)
            for new in change.create:
                self.made += 1
                born = pod(f"p{self.made}", index=new.index)
                self.pods[born.uid] = born
                active.append(born)
            verdict = reached(self.job, standing.succeeded, len(active))
        count = count_pods(self.job, pods, standing, verdict=verdict, tally=Tally(len(active), 0, 0))
        clock = FakeClock()
        if verdict is not None:
            announce(count.status, verdict, clock.now())
        self.job.status.CopyFrom(count.status)
        if crashes:
            return
        for item in count.release:
            self.pods.pop(item.uid, None)
        clear_counted(self.job.status, set(self.pods))
        if verdict is not None and count.is_all:
            finish(self.job.status, verdict, clock.now())


def _jobs(made: Any) -> batch_pb2.Job:
    completions, parallelism, mode = made
    found = job(completionMode=mode, completions=completions, parallelism=parallelism)
    found.spec.backoffLimit = 10_000
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 5), st.sampled_from(["NonIndexed", "Indexed"])).map(_jobs),
    events,
)
def test_B20_whatever_happens_no_success_is_lost_or_counted_twice(made: batch_pb2.Job, happens: Any) -> None:
    cluster = Cluster(made)
    cluster.step()
    for what, place in happens:
        if what == "crash":
            cluster.step(crashes=True)
        else:
            cluster.happen(what, place)
            cluster.step()
        alive = [item for item in cluster.pods.values() if item.is_active]
        assert len(alive) <= made.spec.parallelism
        indexes = [item.job.index for item in alive if item.job is not None and item.job.index is not None]
        assert len(set(indexes)) == len(indexes)
        assert made.status.succeeded <= len(cluster.succeeded) <= made.spec.completions
    for _ in range(made.spec.completions + 2):
        cluster.happen("succeed", 0)
        cluster.step()
    assert made.status.succeeded == len(cluster.succeeded) == made.spec.completions
    assert is_finished(made)
    assert not cluster.pods
    if made.spec.completionMode == "Indexed":
        assert parse_indexes(made.status.completedIndexes, 100).ranges == ((0, made.spec.completions - 1),)
