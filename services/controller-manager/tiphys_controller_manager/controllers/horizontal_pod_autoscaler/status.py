"""The status of an autoscaler. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys_apimachinery.meta import set_condition, to_time
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.plan import Note, Outcome


def new_status(scaler: Any, outcome: Outcome, current: int, now: datetime) -> v2.HorizontalPodAutoscalerStatus:
    """The status after an outcome; what was not looked at stays as it was. current is the number that was found."""
    status = v2.HorizontalPodAutoscalerStatus()
    status.CopyFrom(scaler.status)
    status.observedGeneration = scaler.metadata.generation
    status.currentReplicas, status.desiredReplicas = current, outcome.desired
    if outcome.replicas is not None:
        status.lastScaleTime.CopyFrom(to_time(now))
    if outcome.measures is not None:
        del status.currentMetrics[:]
        status.currentMetrics.extend(outcome.measures)
    note(status, outcome.notes, now)
    return status


def note(status: Any, notes: Iterable[Note], now: datetime) -> None:
    """Make the conditions say so; of several notes about one the last counts."""
    for last in {one.type: one for one in notes}.values():
        wanted = v2.HorizontalPodAutoscalerCondition(
            type=last.type, status="True" if last.holds else "False", reason=last.reason, message=last.message
        )
        wanted.lastTransitionTime.CopyFrom(to_time(now))
        set_condition(status.conditions, wanted)
