"""How long pods took to start, read from their statuses; and how long certificates are good for."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pytest

from tiphys.api.core.v1.pod_pb2 import Pod, PodStatus
from tiphys_component.certificates import CertificateAuthority, Credential, expires_at
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry
from tiphys_kubelet.server.certificate_metrics import CertificateMetrics
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


PAIR: Credential = CertificateAuthority.create("ours").issue("n1", client=True)
PREFIX = "kubelet_certificate_manager"


def told_of_certificates(client_pem: bytes, server: Path | None, *, left_s: float = 90.0) -> Registry:
    """Metrics read when the pair has so much time left."""
    clock = FakeClock(expires_at(PAIR.cert_pem) - timedelta(seconds=left_s))
    registry = Registry()
    CertificateMetrics(clock, client_pem=client_pem, server=server).show_in(registry)
    return registry


@pytest.mark.parametrize("left_s", [90.0, -90.0], ids=["valid", "expired"])
def test_J5_certificates_tell_how_long_they_are_good_for(tmp_path: Path, left_s: float) -> None:
    PAIR.write(tmp_path / "n1.crt", tmp_path / "n1.key")
    registry = told_of_certificates(PAIR.cert_pem, tmp_path / "n1.crt", left_s=left_s)
    assert registry.value(f"{PREFIX}_client_ttl_seconds") == left_s
    assert registry.value(f"{PREFIX}_server_ttl_seconds") == left_s


def test_J5_what_is_not_there_never_ends_and_what_can_not_be_read_is_no_number(tmp_path: Path) -> None:
    assert told_of_certificates(b"", None).value(f"{PREFIX}_server_ttl_seconds") == math.inf
    registry = told_of_certificates(b"", tmp_path / "n1.crt")
    assert registry.value(f"{PREFIX}_client_ttl_seconds") == math.inf
    left = registry.value(f"{PREFIX}_server_ttl_seconds")
    assert left is not None
    assert math.isnan(left)
