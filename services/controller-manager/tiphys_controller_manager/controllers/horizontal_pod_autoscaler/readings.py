"""What was measured, as values. All amounts are thousandths of their unit, as everywhere in Kubernetes' autoscaler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class MeasureError(Exception):
    """A measure can't be had or used now; the text is for users."""


@dataclass(frozen=True, slots=True)
class PodSample:
    """What one pod uses or shows: the mean of the window that ends at `at_s`, seconds since the epoch."""

    value: int
    at_s: float = 0.0
    window_s: float = 0.0


# By name of the pod.
Samples = Mapping[str, PodSample]


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod of the workload. Times are seconds since the epoch, None where the pod has none.

    ready is None while the pod has no condition Ready. requests are by resource, of the pod and of each container; a
    resource that some container does not ask for has in `missing` the name of that container.
    """

    name: str
    phase: str = "Running"
    is_deleting: bool = False
    ready: bool | None = True
    ready_changed_s: float = 0.0
    started_s: float | None = 0.0
    requests: Mapping[str, int] = field(default_factory=dict)
    container_requests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


# What one measure of the spec came to: samples of pods, one number of something else, or why there is none.
Reading = Samples | int | MeasureError
