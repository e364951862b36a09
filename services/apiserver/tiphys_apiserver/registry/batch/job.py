"""Jobs: their selector is made by the server, from the job's uid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.apps.pod_owner import selector_errors, template_errors
from tiphys_apiserver.registry.batch.job_policies import policy_errors
from tiphys_apiserver.registry.batch.job_status import status_errors
from tiphys_apiserver.registry.core.pod_defaults import default_pod_spec
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

UID_LABEL = "batch.kubernetes.io/controller-uid"
NAME_LABEL = "batch.kubernetes.io/job-name"
# The same two labels as they were before 1.27; controllers and people still select by them.
LEGACY_UID_LABEL = "controller-uid"
LEGACY_NAME_LABEL = "job-name"
TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
_BACKOFF_LIMIT = 6
_NO_LIMIT = 2**31 - 1
_POLICIES = ("OnFailure", "Never")
# What says how pods are counted stays as long as the job.
_IMMUTABLE = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")


class JobStrategy(Strategy):
    """The rules of jobs."""

    def apply_defaults(self, obj: Message) -> None:
        """completions follow parallelism where neither is given; a job may fail six times."""
        job: Any = obj
        spec = job.spec
        if not spec.HasField("completions") and not spec.HasField("parallelism"):
            spec.completions = 1
            spec.parallelism = 1
        super().apply_defaults(obj)
        if not spec.HasField("backoffLimit"):
            spec.backoffLimit = _NO_LIMIT if spec.HasField("backoffLimitPerIndex") else _BACKOFF_LIMIT
        if not spec.HasField("podReplacementPolicy"):
            spec.podReplacementPolicy = "Failed" if spec.HasField("podFailurePolicy") else "TerminatingOrFailed"
        if not job.metadata.labels:
            for key, value in spec.template.metadata.labels.items():
                job.metadata.labels[key] = value
        default_pod_spec(spec.template.spec)

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """Make the selector, unless the author brings one by hand."""
        super().prepare_for_create(ctx, obj)
        job: Any = obj
        if not job.spec.manualSelector:
            generate_selector(job)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Every fault of a new job."""
        job: Any = obj
        errors = super().validate(ctx, obj) + job_spec_errors(job.spec, "spec")
        errors += _name_errors(job)
        if not job.spec.manualSelector:
            errors += _generated_label_errors(job)
        if job.spec.HasField("selector"):
            errors += selector_errors(job.spec.selector, job.spec.template.metadata.labels, "job")
        return errors

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The template stays, but for the scheduling of a job that is suspended and has not begun."""
        errors = super().validate_update(ctx, new, old) + job_spec_errors(new.spec, "spec")
        if new.spec.template != old.spec.template and not _may_steer(new, old):
            errors.append(FieldError.invalid("spec.template", "", "field is immutable"))
        indexed = new.spec.completionMode == "Indexed"
        if new.spec.completions != old.spec.completions and not (
            indexed and new.spec.completions == new.spec.parallelism
        ):
            errors.append(FieldError.invalid("spec.completions", new.spec.completions, "field is immutable"))
        for name in _IMMUTABLE:
            if _differ(new.spec, old.spec, name):
                errors.append(FieldError.invalid(f"spec.{name}", _shown(new.spec, name), "field is immutable"))
        return errors

    def validate_status_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Every fault of a new status."""
        return [*super().validate_status_update(ctx, new, old), *status_errors(new, old)]


def _differ(new: Any, old: Any, name: str) -> bool:
    return bool(new.HasField(name) != old.HasField(name) or getattr(new, name) != getattr(old, name))


def _shown(spec: Any, name: str) -> Any:
    value = getattr(spec, name) if spec.HasField(name) else None
    return to_json(value, with_type_meta=False) if isinstance(value, Message) else value


def _name_errors(job: Any) -> Iterator[FieldError]:
    """Pods of an indexed job have host names made of the job's, so that must leave room."""
    spec = job.spec
    if spec.completionMode != "Indexed" or spec.completions <= 0:
        return
    for why in validation.is_dns1123_label(f"{job.metadata.name}-{spec.completions - 1}"):
        text = f"will not able to create pod with invalid DNS label: {why}"
        yield FieldError.invalid("metadata.name", job.metadata.name, text)


def _generated_label_errors(job: Any) -> Iterator[FieldError]:
    """An author may have given one of the labels that the server makes another value."""
    path = "spec.template.metadata.labels"
    labels = job.spec.template.metadata.labels
    for key, value in _generated_labels(job).items():
        if labels.get(key) != value:
            yield FieldError.invalid(path, dict(labels), f"must be '{value}'")


def _generated_labels(job: Any) -> dict[str, str]:
    uid, name = job.metadata.uid, job.metadata.name
    return {LEGACY_UID_LABEL: uid, UID_LABEL: uid, LEGACY_NAME_LABEL: name, NAME_LABEL: name}


def _may_steer(new: Any, old: Any) -> bool:
    """Whether only where the pods go was changed, in a job that has none yet."""
    if not old.spec.suspend or old.status.HasField("startTime"):
        return False
    a, b = type(new)(), type(new)()
    a.CopyFrom(new)
    b.CopyFrom(old)
    for job in (a, b):
        template = job.spec.template
        for name in ("nodeSelector", "affinity", "tolerations", "schedulingGates"):
            template.spec.ClearField(name)
        template.metadata.ClearField("labels")
        template.metadata.ClearField("annotations")
    return bool(a.spec.template == b.spec.template)


def generate_selector(job: Any) -> None:
    """Select by the job's uid, and label the template so; labels that the author gave are left, and judged later."""
    labels = job.spec.template.metadata.labels
    for key, value in _generated_labels(job).items():
        if key not in labels:
            labels[key] = value
    if UID_LABEL not in job.spec.selector.matchLabels:
        job.spec.selector.matchLabels[UID_LABEL] = job.metadata.uid


def job_spec_errors(spec: Any, path: str) -> list[FieldError]:
    """Faults of a job's spec, also within a cron job."""
    return [*template_errors(spec.template, "Job", f"{path}.template", policies=_POLICIES), *_own(spec, path)]


def _own(spec: Any, path: str) -> Iterator[FieldError]:
    if not spec.template.spec.restartPolicy or spec.template.spec.restartPolicy == "Always":
        # The template's own check has said which values are supported.
        return
    yield from policy_errors(spec, path)
