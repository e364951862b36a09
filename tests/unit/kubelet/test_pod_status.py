"""The status of a pod, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kubelet.builders import CREATED, EXITED, NOW, RUNNING, box, make_pod, run, seen
from tiphys.api.core.v1.pod_pb2 import Pod, PodStatus
from tiphys_kubelet.observation import PodObservation
from tiphys_kubelet.pod_state import ProbeVerdict, Waiting
from tiphys_kubelet.pod_status import StatusInputs, make_status


def status_of(pod: Pod, observed: PodObservation, **more: Any) -> PodStatus:
    """A status now."""
    more.setdefault("previous", pod.status)
    return make_status(StatusInputs(pod=pod, observed=observed, now=NOW, host_ips=("198.18.1.1",), **more))


def conditions(status: PodStatus) -> dict[str, str]:
    """Condition statuses by type."""
    return {c.type: c.status for c in status.conditions}


POD = make_pod("app")
TWO = make_pod("app", "peer")
ONCE = make_pod("app", policy="Never")
MAYBE = make_pod("app", policy="OnFailure")
INIT = make_pod("app", init=("one",))
INIT_ONCE = make_pod("app", init=("one",), policy="Never")
PHASES = [
    ("nothing", POD, seen(), "Pending"),
    ("sandbox-only", POD, seen(box()), "Pending"),
    ("created", POD, seen(box(), run(POD, "app", CREATED)), "Pending"),
    ("running", POD, seen(box(), run(POD, "app", RUNNING)), "Running"),
    ("one-of-two", TWO, seen(box(), run(TWO, "app", RUNNING)), "Pending"),
    ("crashed-always", POD, seen(box(), run(POD, "app", EXITED, 1)), "Running"),
    ("ended-always", POD, seen(box(), run(POD, "app", EXITED, 0)), "Running"),
    ("failed-never", ONCE, seen(box(), run(ONCE, "app", EXITED, 1)), "Failed"),
    ("succeeded-never", ONCE, seen(box(), run(ONCE, "app", EXITED, 0)), "Succeeded"),
    ("failed-on-failure", MAYBE, seen(box(), run(MAYBE, "app", EXITED, 1)), "Running"),
    ("succeeded-on-failure", MAYBE, seen(box(), run(MAYBE, "app", EXITED, 0)), "Succeeded"),
    ("init-running", INIT, seen(box(), run(INIT, "one", RUNNING)), "Pending"),
    ("init-failed-never", INIT_ONCE, seen(box(), run(INIT_ONCE, "one", EXITED, 1)), "Failed"),
    ("init-failed-always", INIT, seen(box(), run(INIT, "one", EXITED, 1)), "Pending"),
]


@pytest.mark.parametrize(("pod", "observed", "phase"), [c[1:] for c in PHASES], ids=[c[0] for c in PHASES])
def test_phase(pod: Pod, observed: PodObservation, phase: str) -> None:
    assert status_of(pod, observed).phase == phase


def test_running_pod_is_ready_and_has_its_addresses() -> None:
    status = status_of(POD, seen(box(), run(POD, "app", RUNNING)))
    assert set(conditions(status).values()) == {"True"}
    assert (status.podIP, [ip.ip for ip in status.podIPs]) == ("10.0.0.1", ["10.0.0.1"])
    assert (status.hostIP, [ip.ip for ip in status.hostIPs]) == ("198.18.1.1", ["198.18.1.1"])
    assert status.observedGeneration == 1
    told = status.containerStatuses[0]
    assert (told.ready, told.started, told.containerID) == (True, True, "containerd://app-0")
    assert (told.image, told.imageID) == ("docker.io/library/busybox:latest", "sha256:1")


def test_phase_never_goes_back_from_the_end() -> None:
    pod = make_pod("app")
    pod.status.phase = "Succeeded"
    assert status_of(pod, seen()).phase == "Succeeded"


def test_container_that_never_had_its_turn_is_not_told_as_lost() -> None:
    pod = make_pod("app", init=("one",), policy="Never")
    failed = seen(box(ready=False), run(pod, "one", EXITED, 1))
    status = status_of(pod, failed, previous=status_of(pod, failed), ended=True)
    assert (status.phase, status.containerStatuses[0].state.waiting.reason) == ("Failed", "PodInitializing")
    assert conditions(status)["Initialized"] == "False"


def test_end_is_not_told_before_the_last_container_has_ended() -> None:
    pod = make_pod("app", init=("side*",), policy="Never")
    still = seen(box(), run(pod, "side", RUNNING), run(pod, "app", EXITED, 0))
    assert status_of(pod, still).phase == "Running"
    over = seen(box(ready=False), run(pod, "side", EXITED, 0), run(pod, "app", EXITED, 0))
    assert status_of(pod, over).phase == "Succeeded"


def test_waiting_reasons_before_the_start() -> None:
    status = status_of(INIT, seen(box()))
    assert status.initContainerStatuses[0].state.waiting.reason == "ContainerCreating"
    assert status.containerStatuses[0].state.waiting.reason == "PodInitializing"
    assert conditions(status)["Initialized"] == "False"
    initialized = next(c for c in status.conditions if c.type == "Initialized")
    assert initialized.reason == "ContainersNotInitialized"
    assert initialized.message == "containers with incomplete status: [one]"


def test_crash_loop_shows_why_it_waits_and_how_it_ended() -> None:
    waiting = {"app": Waiting("CrashLoopBackOff", "back-off 10s")}
    observed = seen(box(), run(POD, "app", EXITED, 7, attempt=1), run(POD, "app", EXITED, 6))
    told = status_of(POD, observed, waiting=waiting).containerStatuses[0]
    assert told.state.waiting.reason == "CrashLoopBackOff"
    assert told.lastState.terminated.exitCode == 7
    assert told.restartCount == 1
    assert not told.ready


def test_restarted_container_shows_the_run_before() -> None:
    observed = seen(box(), run(POD, "app", RUNNING, attempt=1), run(POD, "app", EXITED, 6))
    told = status_of(POD, observed).containerStatuses[0]
    assert told.state.HasField("running")
    assert told.lastState.terminated.exitCode == 6


@pytest.mark.parametrize(
    ("verdict", "started", "ready"),
    [
        (ProbeVerdict(started=False, ready=False), False, False),
        (ProbeVerdict(started=True, ready=False), True, False),
        (ProbeVerdict(), True, True),
    ],
    ids=["not-started", "not-ready", "ready"],
)
def test_probes_decide_on_readiness(verdict: ProbeVerdict, started: bool, ready: bool) -> None:
    status = status_of(POD, seen(box(), run(POD, "app", RUNNING)), probes={"app-0": verdict})
    told = status.containerStatuses[0]
    assert (told.started, told.ready) == (started, ready)
    assert conditions(status)["Ready"] == str(ready)


def test_container_with_a_probe_that_has_not_run_is_not_ready() -> None:
    pod = make_pod("app")
    pod.spec.containers[0].readinessProbe.periodSeconds = 1
    status = status_of(pod, seen(box(), run(pod, "app", RUNNING)))
    condition = next(c for c in status.conditions if c.type == "Ready")
    assert (condition.status, condition.reason) == ("False", "ContainersNotReady")
    assert condition.message == "containers with unready status: [app]"


def test_readiness_gates_hold_ready_and_not_containers_ready() -> None:
    pod = make_pod("app")
    pod.spec.readinessGates.add(conditionType="example.com/up")
    told = status_of(pod, seen(box(), run(pod, "app", RUNNING)))
    assert (conditions(told)["ContainersReady"], conditions(told)["Ready"]) == ("True", "False")
    ready = next(c for c in told.conditions if c.type == "Ready")
    assert ready.reason == "ReadinessGatesNotReady"
    pod.status.conditions.add(type="example.com/up", status="True")
    again = status_of(pod, seen(box(), run(pod, "app", RUNNING)))
    assert conditions(again)["Ready"] == "True"
    assert conditions(again)["example.com/up"] == "True"


def test_transition_time_stays_while_the_status_stays() -> None:
    first = status_of(POD, seen(box(), run(POD, "app", RUNNING)))
    first.conditions[0].lastTransitionTime.seconds = 5
    again = status_of(POD, seen(box(), run(POD, "app", RUNNING)), previous=first)
    assert again.conditions[0].lastTransitionTime.seconds == 5
    changed = status_of(POD, seen(box(ready=False), run(POD, "app", EXITED, 1)), previous=first)
    assert changed.conditions[0].lastTransitionTime.seconds == int(NOW.timestamp())


def test_same_picture_gives_the_same_status() -> None:
    observed = seen(box(), run(POD, "app", RUNNING))
    first = status_of(POD, observed)
    assert status_of(POD, observed, previous=first) == first


def test_deleted_before_anything_ran_is_failed_and_says_so() -> None:
    told = status_of(POD, seen(), ended=True)
    assert told.phase == "Failed"
    assert told.containerStatuses[0].state.terminated.reason == "ContainerStatusUnknown"


def test_ended_pod_keeps_what_was_told_of_removed_containers_and_its_address() -> None:
    last = status_of(ONCE, seen(box(ready=False), run(ONCE, "app", EXITED, 3)), ended=True)
    pod = make_pod("app", policy="Never")
    pod.status.CopyFrom(last)
    again = status_of(pod, seen(), ended=True)
    assert again.containerStatuses[0].state.terminated.exitCode == 3
    assert again.podIP == last.podIP == "10.0.0.1"


def test_host_network_has_the_address_of_the_node() -> None:
    pod = make_pod("app", hostNetwork=True)
    status = status_of(pod, seen(box(ip="", host=True), run(pod, "app", RUNNING)))
    assert status.podIP == "198.18.1.1"
    assert conditions(status)["PodReadyToStartContainers"] == "True"


def test_deadline_fails_the_pod_with_its_reason() -> None:
    why = Waiting("DeadlineExceeded", "too long")
    status = status_of(POD, seen(box(ready=False), run(POD, "app", EXITED, 137)), failed=why, ended=True)
    assert (status.phase, status.reason, status.message) == ("Failed", "DeadlineExceeded", "too long")
