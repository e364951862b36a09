"""How long pods took to start, read from their statuses."""

from __future__ import annotations

import pytest

from tiphys.api.core.v1.pod_pb2 import Pod, PodStatus
from tiphys_kubelet.server.metrics import start_duration_s


def started(*at_s: int, phase: str = "Running", init: tuple[int, int] = (0, 0), containers: int = 1) -> Pod:
    """A pod made at 100 whose containers began at these moments, after an init container's."""
    pod = Pod()
    pod.metadata.creationTimestamp.seconds = 100
    pod.status.phase = phase
    for number in range(containers):
        pod.spec.containers.add(name=f"c{number}")
    for number, seconds in enumerate(at_s):
        pod.status.containerStatuses.add(name=f"c{number}").state.running.startedAt.seconds = seconds
    if init[1]:
        ended = pod.status.initContainerStatuses.add(name="i").state.terminated
        ended.startedAt.seconds, ended.finishedAt.seconds = init
    return pod


@pytest.mark.parametrize(
    ("pod", "before", "took_s"),
    [
        pytest.param(started(103), "Pending", 3, id="from its creation"),
        pytest.param(started(103, 107, containers=2), "Pending", 7, id="until the last container runs"),
        pytest.param(started(110, init=(102, 108)), "Pending", 4, id="without init containers"),
        pytest.param(started(99), "Pending", 0, id="never below nothing"),
        pytest.param(started(103), "Running", None, id="it ran before"),
        pytest.param(started(103, containers=2), "Pending", None, id="one container does not run yet"),
        pytest.param(started(103, phase="Pending"), "Pending", None, id="it does not run yet"),
        pytest.param(started(phase="Running"), "", None, id="nothing is known of its containers"),
    ],
)
def test_J5_start_of_a_pod_is_told_once_with_its_duration(pod: Pod, before: str, took_s: float | None) -> None:
    assert start_duration_s(pod, PodStatus(phase=before)) == took_s
