"""How long a Job waits before it makes a pod in place of one that failed: 10 s, doubled by each failure in a row.

Source: kubernetes pkg/controller/job/backoff_utils.go. Its cap is that of the documentation, six minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tiphys_controller_manager.controllers.job.policies import facts_of
from tiphys_controller_manager.pods import PodView

FIRST_S: Final = 10.0
CAP_S: Final = 360.0


@dataclass(frozen=True, slots=True)
class Record:
    """Failures since the last success, and when the last of them was, in seconds since the epoch.

    ahead are pods by uid that were seen to have ended at a moment still to come, with when that was first seen.
    """

    failures: int = 0
    last: float = 0.0
    ahead: Mapping[str, float] = field(default_factory=dict)

    def after(self, succeeded: Iterable[PodView], failed: Iterable[PodView]) -> Record:
        """The record when these have ended too. A success wipes out all failures up to it."""
        good = max((facts_of(pod).ended for pod in succeeded), default=None)
        bad = [facts_of(pod).ended for pod in failed]
        if good is None:
            return replace(self, failures=self.failures + len(bad), last=max(bad)) if bad else self
        later = [moment for moment in bad if moment > good]
        return replace(self, failures=len(later), last=max(later, default=0.0))

    def seen_at(self, now: float, delayed: Iterable[PodView] = ()) -> Record:
        """The record with no moment that is still to come; delayed are the pods whose indexes wait, each for itself.

        The clock that stamped it was ahead, or this one was set back: it would be ahead at every look, and the delay
        begin anew each time.
        """
        known = self.ahead
        ahead = {
            pod.uid: min(known.get(pod.uid, now), now)
            for pod in delayed
            if pod.uid in known or facts_of(pod).ended > now
        }
        return replace(self, last=min(self.last, now), ahead=ahead)

    def ended(self, pod: PodView) -> float:
        """When the pod ended; where that was still to come, when it was first seen."""
        return self.ahead.get(pod.uid, facts_of(pod).ended)

    def remaining(self, now: float) -> float:
        """Seconds until the next pod may be made."""
        return remaining(self.failures, self.last, now)


def remaining(failures: int, last: float, now: float) -> float:
    """Seconds to wait at now after so many failures in a row."""
    if failures <= 0:
        return 0.0
    # A clock that was set back must not prolong the wait beyond the delay itself.
    delay = min(FIRST_S * 2.0 ** min(failures - 1, 16), CAP_S)
    return max(delay - max(now - last, 0.0), 0.0)
