"""Jobs: their selector is made by the server, from the job's uid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.apps.pod_owner import selector_errors, template_errors
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
_MAX_INDEXED_PARALLELISM = 100_000


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
        return errors


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
    """Select by the job's uid, and label the template so."""
    uid = job.metadata.uid
    labels = job.spec.template.metadata.labels
    for key in (LEGACY_UID_LABEL, UID_LABEL):
        labels[key] = uid
    for key in (LEGACY_NAME_LABEL, NAME_LABEL):
        labels[key] = job.metadata.name
    job.spec.selector.matchLabels[UID_LABEL] = uid


def job_spec_errors(spec: Any, path: str) -> list[FieldError]:
    """Faults of a job's spec, also within a cron job."""
    return [*template_errors(spec.template, "Job", f"{path}.template", policies=_POLICIES), *_own(spec, path)]


def _own(spec: Any, path: str) -> Iterator[FieldError]:
    if not spec.template.spec.restartPolicy or spec.template.spec.restartPolicy == "Always":
        # The template's own check has said which values are supported.
        return
    if spec.completionMode == "Indexed":
        if not spec.HasField("completions"):
            yield FieldError.required(f"{path}.completions", "when completion mode is Indexed")
        if spec.parallelism > _MAX_INDEXED_PARALLELISM:
            yield FieldError.invalid(
                f"{path}.parallelism",
                spec.parallelism,
                f"must be less than or equal to {_MAX_INDEXED_PARALLELISM} when completion mode is Indexed",
            )
    elif spec.HasField("backoffLimitPerIndex"):
        yield FieldError.invalid(
            f"{path}.backoffLimitPerIndex", spec.backoffLimitPerIndex, "requires indexed completion mode"
        )
    if spec.HasField("podFailurePolicy") and spec.template.spec.restartPolicy != "Never":
        yield FieldError.invalid(
            f"{path}.template.spec.restartPolicy",
            spec.template.spec.restartPolicy,
            'only "Never" is supported when podFailurePolicy is specified',
        )
    if spec.HasField("managedBy"):
        for why in validation.is_qualified_name(spec.managedBy):
            yield FieldError.invalid(f"{path}.managedBy", spec.managedBy, why)
