"""Rules for the status of a job, which controllers of others (spec.managedBy) may write as well as ours.

Source: kubernetes pkg/apis/batch/validation/validation.go, validateJobStatus, and pkg/registry/batch/job/strategy.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.meta import is_condition_true
from tiphys_apiserver.registry.batch.job_policies import indexes_fault

_COUNTS = ("active", "succeeded", "failed", "ready", "terminating")
_EXCLUSIVE = (
    ("Complete", "Failed"),
    ("Complete", "FailureTarget"),
    ("Failed", "SuccessCriteriaMet"),
    ("FailureTarget", "SuccessCriteriaMet"),
)
_ANNOUNCED = (("Complete", "SuccessCriteriaMet"), ("Failed", "FailureTarget"))


def status_errors(new: Any, old: Any) -> Iterator[FieldError]:
    """Faults of a changed status: what it says must be true together, and what has ended stays so."""
    status = new.status
    for name in _COUNTS:
        if getattr(status, name) < 0:
            yield FieldError.invalid(f"status.{name}", getattr(status, name), "must be greater than or equal to 0")
    if status.ready > status.active:
        yield FieldError.invalid("status.ready", status.ready, "cannot set more ready pods than active")
    yield from _conditions(status, old.status)
    yield from _end(status)
    yield from _indexes(new)
    yield from _uncounted(status)
    if old.status.HasField("startTime") and not status.HasField("startTime") and not new.spec.suspend:
        yield FieldError.required("status.startTime", "startTime cannot be removed for unsuspended job")
    if new.spec.completionMode != "Indexed" and status.succeeded < old.status.succeeded:
        yield FieldError.invalid("status.succeeded", status.succeeded, "cannot decrease the succeeded counter")
    if status.failed < old.status.failed:
        yield FieldError.invalid("status.failed", status.failed, "cannot decrease the failed counter")


def _conditions(status: Any, old: Any) -> Iterator[FieldError]:
    path = "status.conditions"
    for one, other in _EXCLUSIVE:
        if is_condition_true(status.conditions, one) and is_condition_true(status.conditions, other):
            yield FieldError.invalid(path, "", f"cannot set {one}=True and {other}=true conditions")
    for final, interim in _ANNOUNCED:
        had = is_condition_true(old.conditions, final)
        has = is_condition_true(status.conditions, final)
        if has and not had and not is_condition_true(status.conditions, interim):
            why = f"cannot set {final}=True condition without the {interim}=true condition"
            yield FieldError.invalid(path, "", why)
        for kind in (final, interim):
            if is_condition_true(old.conditions, kind) and not is_condition_true(status.conditions, kind):
                yield FieldError.invalid(path, "", f"cannot disable the {kind}=True condition")


def _end(status: Any) -> Iterator[FieldError]:
    is_complete = is_condition_true(status.conditions, "Complete")
    if is_complete and not status.HasField("completionTime"):
        yield FieldError.required("status.completionTime", "completionTime is required for Complete jobs")
    if status.HasField("completionTime"):
        shown = status.completionTime.seconds
        if not is_complete:
            why = "cannot set completionTime when there is no Complete=True condition"
            yield FieldError.invalid("status.completionTime", shown, why)
        elif status.HasField("startTime") and shown < status.startTime.seconds:
            yield FieldError.invalid("status.completionTime", shown, "completionTime cannot be set before startTime")
    if not is_complete and not is_condition_true(status.conditions, "Failed"):
        return
    for name in ("active", "terminating"):
        if getattr(status, name) > 0:
            yield FieldError.invalid(f"status.{name}", getattr(status, name), f"{name}>0 is invalid for finished job")
    if status.uncountedTerminatedPods.succeeded or status.uncountedTerminatedPods.failed:
        why = "uncountedTerminatedPods needs to be empty for finished job"
        yield FieldError.invalid("status.uncountedTerminatedPods", {}, why)


def _indexes(job: Any) -> Iterator[FieldError]:
    status, spec = job.status, job.spec
    for name in ("completedIndexes", "failedIndexes"):
        text = getattr(status, name)
        if not text:
            continue
        if spec.completionMode != "Indexed":
            why = f"cannot set non-empty {name} when non-indexed completion mode"
            yield FieldError.invalid(f"status.{name}", text, why)
        elif why := indexes_fault(text, spec.completions):
            yield FieldError.invalid(f"status.{name}", text, f"error parsing {name}: {why}")


def _uncounted(status: Any) -> Iterator[FieldError]:
    seen: set[str] = set()
    for name in ("succeeded", "failed"):
        for number, uid in enumerate(getattr(status.uncountedTerminatedPods, name)):
            path = f"status.uncountedTerminatedPods.{name}[{number}]"
            if not uid:
                yield FieldError.invalid(path, uid, "must not be empty")
            elif uid in seen:
                yield FieldError.duplicate(path, uid)
            seen.add(uid)
