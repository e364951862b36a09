"""How long a failed pod of a DaemonSet stays before it is deleted and made again, longer each time on its node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tiphys_component.backoff import backoff_delay
from tiphys_component.clock import Clock

# Source: kubernetes pkg/controller/daemon/daemon_controller.go and cmd/kube-controller-manager/app/apps.go.
_FIRST_S: Final = 1.0
_LONGEST_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class _Failure:
    count: int
    since: float

    def ends(self) -> float:
        return self.since + backoff_delay(self.count - 1, base_s=_FIRST_S, cap_s=_LONGEST_S)


class FailedPods:
    """Deletions of failed pods by DaemonSet and node; another generation of the DaemonSet starts over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[int, dict[str, _Failure]]] = {}

    def held(self, key: str, generation: int) -> Mapping[str, float]:
        """The nodes where a failed pod has still to wait, and for how many seconds."""
        known = self._of(key, generation)
        now = self._clock.monotonic()
        for node, failure in list(known.items()):
            if now - failure.since > 2 * _LONGEST_S:
                del known[node]
        return {node: failure.ends() - now for node, failure in known.items() if failure.ends() > now}

    def deleted(self, key: str, generation: int, node: str) -> None:
        """A failed pod of this node has been deleted: the next one waits longer."""
        known = self._of(key, generation)
        count = known[node].count if node in known else 0
        known[node] = _Failure(count + 1, self._clock.monotonic())

    def forget(self, key: str) -> None:
        """The DaemonSet is gone."""
        self._known.pop(key, None)

    def _of(self, key: str, generation: int) -> dict[str, _Failure]:
        known = self._known.get(key)
        if known is None or known[0] != generation:
            known = self._known[key] = (generation, {})
        return known[1]
