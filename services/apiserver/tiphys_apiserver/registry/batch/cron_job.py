"""Cron jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.cron import CronError, parse_cron, zone_named
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.batch.job import job_spec_errors
from tiphys_apiserver.registry.core.pod_defaults import default_pod_spec
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Jobs get 11 characters behind the name. Source: pkg/apis/batch/validation.
_MAX_NAME = 52
_DEFAULTS_OF_JOBS = frozenset({"parallelism", "completionMode", "suspend", "manualSelector"})


class CronJobStrategy(Strategy):
    """The rules of cron jobs."""

    def apply_defaults(self, obj: Message) -> None:
        """The schema's, and the pod template's. Those of jobs wait for the jobs: completions depend on what is open."""
        cron_job: Any = obj
        job = cron_job.spec.jobTemplate.spec
        given = {field.name for field, _ in job.ListFields()}
        super().apply_defaults(obj)
        for name in _DEFAULTS_OF_JOBS - given:
            job.ClearField(name)
        default_pod_spec(job.template.spec)

    def validate_name(self, name: str) -> list[str]:
        """Short enough for the names of its jobs."""
        errors = super().validate_name(name)
        if len(name) > _MAX_NAME:
            errors.append(f"must be no more than {_MAX_NAME} characters")
        return errors

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of schedule, zone and template."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(cron_job: Any) -> Iterator[FieldError]:
    spec = cron_job.spec
    if spec.schedule:
        if "TZ" in spec.schedule:
            yield FieldError.invalid(
                "spec.schedule", spec.schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            )
        else:
            try:
                parse_cron(spec.schedule)
            except CronError as err:
                yield FieldError.invalid("spec.schedule", spec.schedule, str(err))
    if spec.HasField("timeZone"):
        yield from _zone(spec.timeZone)
    job = spec.jobTemplate.spec
    if job.HasField("selector"):
        yield FieldError.invalid("spec.jobTemplate.spec.selector", "", "`selector` will be auto-generated")
    if job.manualSelector:
        yield FieldError.not_supported("spec.jobTemplate.spec.manualSelector", True, ["nil", "false"])
    yield from job_spec_errors(job, "spec.jobTemplate.spec")


def _zone(name: str) -> Iterator[FieldError]:
    if not name:
        yield FieldError.invalid("spec.timeZone", name, "timeZone must be nil or non-empty string")
    elif name.lower() == "local":
        yield FieldError.invalid(
            "spec.timeZone",
            name,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        )
    elif zone_named(name) is None:
        yield FieldError.invalid("spec.timeZone", name, f"unknown time zone {name}")
