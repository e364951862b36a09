"""What must be done for a pod, case by case."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.kubelet.builders import CREATED, EXITED, NOW, RUNNING, box, make_pod, run, seen
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.observation import PodObservation
from tiphys_kubelet.pod_spec import spec_hash
from tiphys_kubelet.pod_state import (
    Backoff,
    CreateSandbox,
    KillContainer,
    KillPod,
    Plan,
    PodInputs,
    ProbeVerdict,
    RemoveContainer,
    StartContainer,
    StartFailure,
    StopOrder,
    go_duration,
    next_backoff,
    plan,
)


def decide(pod: Pod, observed: PodObservation, **more: Any) -> Plan:
    """A decision now."""
    return plan(PodInputs(pod, observed, NOW, **more))


def words(decision: Plan) -> list[str]:
    """Actions in short: what and whom."""
    short = []
    for action in decision.actions:
        match action:
            case CreateSandbox(attempt):
                short.append(f"sandbox {attempt}")
            case StartContainer(container, _, attempt):
                short.append(f"start {container.name} {attempt}")
            case KillContainer(target):
                short.append(f"kill {target.name}")
            case KillPod(grace_s):
                short.append(f"end {grace_s}")
            case RemoveContainer(target):
                short.append(f"remove {target.id}")
    return short


POD = make_pod("app")
TWO = make_pod("app", "peer")
ONCE = make_pod("app", policy="Never")
MAYBE = make_pod("app", policy="OnFailure")
INIT = make_pod("app", init=("one", "two"))
INIT_ONCE = make_pod("app", init=("one",), policy="Never")
SIDE = make_pod("app", init=("one", "side*", "two"))
SIDE_ONCE = make_pod("app", init=("side*",), policy="Never")
HOST = make_pod("app", hostNetwork=True)
CASES = [
    ("nothing-yet", POD, seen(), ["sandbox 0"]),
    ("sandbox-only", POD, seen(box()), ["start app 0"]),
    ("two-containers-in-order", TWO, seen(box()), ["start app 0", "start peer 0"]),
    ("all-runs", POD, seen(box(), run(POD, "app", RUNNING)), []),
    ("created-and-forgotten-is-made-anew", POD, seen(box(), run(POD, "app", CREATED)), ["start app 1"]),
    ("exited-is-restarted", POD, seen(box(), run(POD, "app", EXITED, 0)), ["start app 1"]),
    ("never-stays-failed", ONCE, seen(box(), run(ONCE, "app", EXITED, 1)), ["end None"]),
    ("never-stays-succeeded", ONCE, seen(box(), run(ONCE, "app", EXITED, 0)), ["end None"]),
    ("on-failure-restarts-a-failure", MAYBE, seen(box(), run(MAYBE, "app", EXITED, 1)), ["start app 1"]),
    ("on-failure-leaves-a-success", MAYBE, seen(box(), run(MAYBE, "app", EXITED, 0)), ["end None"]),
    ("dead-sandbox-is-replaced", POD, seen(box(ready=False)), ["sandbox 1"]),
    ("dead-sandbox-with-a-living-container", POD, seen(box(ready=False), run(POD, "app", RUNNING)), ["end None"]),
    ("sandbox-without-address-is-replaced", POD, seen(box(ip="")), ["end None"]),
    ("host-network-needs-no-address", HOST, seen(box(ip="", host=True)), ["start app 0"]),
    ("host-network-changed", HOST, seen(box()), ["end None"]),
    ("two-ready-sandboxes", POD, seen(box(), box(attempt=1)), ["end None"]),
    (
        "restart-in-a-new-sandbox-counts-on",
        POD,
        seen(box(ready=False), box(attempt=1), run(POD, "app", EXITED, 137, attempt=3)),
        ["start app 4"],
    ),
    (
        "ended-for-good-is-not-run-in-a-new-sandbox",
        make_pod("app", "peer", policy="OnFailure"),
        seen(box(ready=False), box(attempt=1), run(TWO, "app", EXITED, 0), run(TWO, "peer", EXITED, 1)),
        ["start peer 1"],
    ),
    ("init-begins", INIT, seen(box()), ["start one 0"]),
    ("init-runs", INIT, seen(box(), run(INIT, "one", RUNNING)), []),
    ("init-next", INIT, seen(box(), run(INIT, "one", EXITED, 0)), ["start two 0"]),
    ("init-failed-is-tried-again", INIT, seen(box(), run(INIT, "one", EXITED, 1)), ["start one 1"]),
    ("init-failed-for-good", INIT_ONCE, seen(box(), run(INIT_ONCE, "one", EXITED, 1)), ["end None"]),
    (
        "init-done",
        INIT,
        seen(box(), run(INIT, "one", EXITED, 0), run(INIT, "two", EXITED, 0)),
        ["start app 0"],
    ),
    ("init-is-not-repeated-once-the-rest-runs", INIT, seen(box(), run(INIT, "app", RUNNING)), []),
    ("sidecar-after-init", SIDE, seen(box(), run(SIDE, "one", EXITED, 0)), ["start side 0"]),
    (
        "after-a-started-sidecar",
        SIDE,
        seen(box(), run(SIDE, "one", EXITED, 0), run(SIDE, "side", RUNNING)),
        ["start two 0"],
    ),
    (
        "dead-sidecar-comes-back-while-the-rest-goes-on",
        SIDE,
        seen(box(), run(SIDE, "one", EXITED, 0), run(SIDE, "side", EXITED, 1), run(SIDE, "two", EXITED, 0)),
        ["start side 1", "start app 0"],
    ),
    (
        "sidecars-end-with-the-pod",
        SIDE_ONCE,
        seen(box(), run(SIDE_ONCE, "side", RUNNING), run(SIDE_ONCE, "app", EXITED, 0)),
        ["end None"],
    ),
    (
        "only-the-last-two-runs-are-kept",
        POD,
        seen(box(), *(run(POD, "app", EXITED, 1, attempt=n) for n in range(3)), run(POD, "app", RUNNING, attempt=3)),
        ["remove app-1", "remove app-0"],
    ),
]


@pytest.mark.parametrize(("pod", "observed", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_actions(pod: Pod, observed: PodObservation, expected: list[str]) -> None:
    assert words(decide(pod, observed)) == expected


def test_pod_that_has_ended_is_left_alone() -> None:
    decision = decide(ONCE, seen(box(ready=False), run(ONCE, "app", EXITED, 0)))
    assert decision == Plan(ended=True)


def test_terminal_phase_is_final_even_without_containers() -> None:
    pod = make_pod("app")
    pod.status.phase = "Succeeded"
    assert decide(pod, seen()).ended


def test_deleted_pod_is_ended_with_its_grace_and_then_done() -> None:
    order = StopOrder(grace_s=7)
    assert words(decide(POD, seen(box(), run(POD, "app", RUNNING)), stop=order)) == ["end 7"]
    assert decide(POD, seen(box(ready=False), run(POD, "app", EXITED, 0)), stop=order).ended


def test_deleted_pod_without_anything_is_done_at_once() -> None:
    assert decide(POD, seen(), stop=StopOrder(1)).ended


def test_liveness_failure_kills_the_container() -> None:
    verdicts = {"app-0": ProbeVerdict(live=False)}
    assert words(decide(POD, seen(box(), run(POD, "app", RUNNING)), probes=verdicts)) == ["kill app"]


def test_changed_image_kills_the_container() -> None:
    observed = seen(box(), run(POD, "app", RUNNING))
    changed = make_pod("app")
    changed.spec.containers[0].image = "other"
    (action,) = decide(changed, observed).actions
    assert isinstance(action, KillContainer)
    assert action.message == "Container app definition changed, will be restarted"


def test_sidecar_that_has_not_started_holds_the_rest() -> None:
    observed = seen(box(), run(SIDE, "one", EXITED, 0), run(SIDE, "side", RUNNING))
    assert decide(SIDE, observed, probes={"side-0": ProbeVerdict(started=False)}).actions == ()


def test_crash_is_held_back_until_the_delay_is_over() -> None:
    observed = seen(box(), run(POD, "app", EXITED, 1, attempt=1, ended_ago=3))
    backoff = Backoff(10.0, NOW - timedelta(seconds=8))
    held = decide(POD, observed, backoffs={"app": backoff})
    assert held.actions == ()
    assert held.wake_at == NOW + timedelta(seconds=7)
    assert held.waiting["app"].reason == "CrashLoopBackOff"
    assert held.waiting["app"].message == "back-off 10s restarting failed container=app pod=web_default(uid-1)"
    later = seen(box(), run(POD, "app", EXITED, 1, attempt=1, ended_ago=10))
    assert words(decide(POD, later, backoffs={"app": backoff})) == ["start app 2"]


def test_backoff_doubles_to_its_cap_and_is_forgotten_after_a_long_run() -> None:
    entry, delays, moment = None, [], NOW
    for _ in range(7):
        entry = next_backoff(entry, moment)
        delays.append(entry.delay_s)
        moment += timedelta(seconds=entry.delay_s + 1)
    assert delays == [10, 20, 40, 80, 160, 300, 300]
    assert entry is not None
    assert next_backoff(entry, moment + timedelta(seconds=601)).delay_s == 10


def test_failed_start_waits_for_its_time_and_not_after_a_change() -> None:
    pod = make_pod("app")
    observed = seen(box())
    failure = StartFailure("ErrImagePull", "no", NOW + timedelta(seconds=4), spec_hash(pod.spec.containers[0]))
    held = decide(pod, observed, failures={"app": failure})
    assert (held.actions, held.wake_at) == ((), failure.retry_at)
    assert held.waiting["app"].reason == "ErrImagePull"
    pod.spec.containers[0].image = "better"
    assert words(decide(pod, observed, failures={"app": failure})) == ["start app 0"]


def test_restart_count_goes_on_from_the_status_when_the_runtime_lost_everything() -> None:
    pod = make_pod("app")
    pod.status.containerStatuses.add(name="app", restartCount=4, containerID="containerd://gone")
    assert words(decide(pod, seen(box()))) == ["start app 5"]


def test_ephemeral_container_is_started_once() -> None:
    pod = make_pod("app")
    pod.spec.ephemeralContainers.add().ephemeralContainerCommon.name = "debug"
    pod.spec.ephemeralContainers[0].ephemeralContainerCommon.image = "busybox"
    observed = seen(box(), run(pod, "app", RUNNING))
    assert words(decide(pod, observed)) == ["start debug 0"]
    ended = seen(box(), run(pod, "app", RUNNING), run(pod, "debug", EXITED, 0))
    assert decide(pod, ended).actions == ()


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (60, "1m0s"), (160, "2m40s"), (300, "5m0s")])
def test_durations_read_as_in_go(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
