"""How long the kubelet's certificates are good for, and whether renewed ones could be taken, with Kubernetes' names.

The kubelet asks for no certificates itself: it shows the client certificate that it was given, and takes the serving
one again whenever its files change. What fails to renew is therefore a file that can't be read, or no pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import GaugeMetricFamily, Metric, UnknownMetricFamily

from tiphys_component.certificates import expires_at
from tiphys_component.clock import Clock
from tiphys_component.metrics import Registry

# The two counts have no _total in their names upstream, which only a family of no type may lack.
# Source: kubernetes pkg/kubelet/certificate/kubelet.go.
_RENEWALS = "Renewed certificates that could not be taken."


class CertificateMetrics:
    """Made when the metrics are read. client_pem is empty where a token is shown, server None where there is no TLS."""

    def __init__(self, clock: Clock, *, client_pem: bytes, server: Path | None) -> None:
        self._clock = clock
        self._client_pem = client_pem
        self._server = server
        self._failed = 0

    def show_in(self, registry: Registry) -> None:
        """Have a registry show them."""
        registry.collector(self._collect)

    def not_reloaded(self) -> None:
        """The serving certificate's files have changed and can't be used."""
        self._failed += 1

    def _collect(self) -> Iterator[Metric]:
        prefix = "kubelet_certificate_manager"
        told = "Seconds until the {} certificate ends, negative when it has; infinite without one."
        yield GaugeMetricFamily(f"{prefix}_client_ttl_seconds", told.format("client"), self._left_s(self._client_pem))
        yield GaugeMetricFamily(f"{prefix}_server_ttl_seconds", told.format("serving"), self._left_s(self._served()))
        yield UnknownMetricFamily(f"{prefix}_client_expiration_renew_errors", _RENEWALS, 0)
        yield UnknownMetricFamily("kubelet_server_expiration_renew_errors", _RENEWALS, self._failed)

    def _left_s(self, pem: bytes) -> float:
        try:
            return (expires_at(pem) - self._clock.now()).total_seconds() if pem else math.inf
        except ValueError:
            # Half written: not_reloaded tells of it.
            return math.nan

    def _served(self) -> bytes:
        if self._server is None:
            return b""
        try:
            return self._server.read_bytes()
        except OSError:
            return b"unreadable"
