"""Rules of jobs: what their policies must say, what stays as it is, and what a status may claim."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import read
from tests.unit.apiserver.registry.bench import context, create_faults, made, strategy_of, update_faults
from tests.unit.apiserver.registry.test_kinds import JOB_POD, SELECTOR, spec
from tiphys.api.batch.v1.batch_pb2 import CronJob, Job

INDEXED = "completionMode: Indexed, completions: 4, parallelism: 2"
OWN_POD = f"manualSelector: true, {SELECTOR}, {JOB_POD.replace('{spec:', '{metadata: {labels: {a: b}}, spec:')}"
CODES = "onExitCodes: {operator: In, values: [1, 2]}"


def failing(*rules: str) -> str:
    """A pod failure policy of these rules."""
    return f"podFailurePolicy: {{rules: [{', '.join(f'{{{rule}}}' for rule in rules)}]}}"


def succeeding(*rules: str) -> str:
    """A success policy of these rules, in an indexed job."""
    return f"{INDEXED}, successPolicy: {{rules: [{', '.join(f'{{{rule}}}' for rule in rules)}]}}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(failing(f"action: FailJob, {CODES}"), id="exit codes"),
        pytest.param(failing("action: Ignore, onPodConditions: [{type: DisruptionTarget}]"), id="a condition"),
        pytest.param(f"{INDEXED}, backoffLimitPerIndex: 1, {failing(f'action: FailIndex, {CODES}')}", id="an index"),
        pytest.param(f"{INDEXED}, backoffLimitPerIndex: 1, maxFailedIndexes: 4", id="all may fail"),
        pytest.param(succeeding("succeededIndexes: '0,2-3', succeededCount: 2"), id="some of some indexes"),
        pytest.param("managedBy: example.com/mine", id="managed by another"),
        pytest.param("suspend: true, ttlSecondsAfterFinished: 0, activeDeadlineSeconds: 5", id="times"),
    ],
)
def test_B21_jobs_with_policies_have_no_fault(text: str) -> None:
    assert create_faults(Job, spec(JOB_POD, text)) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("backoffLimitPerIndex: 1", "requires indexed completion mode", id="no indexes to limit"),
        pytest.param("maxFailedIndexes: 1", "backoffLimitPerIndex: Required value: when maxFailed", id="no limit each"),
        pytest.param(
            f"{INDEXED}, backoffLimitPerIndex: 1, maxFailedIndexes: 5",
            "must be less than or equal to completions",
            id="more than there are",
        ),
        pytest.param("completionMode: Indexed, completions: null, parallelism: 2", "when completion mode", id="no end"),
        pytest.param(
            "completionMode: Indexed, completions: 100001, backoffLimitPerIndex: 1",
            "must be specified when completions is above 100000",
            id="too many to keep",
        ),
        pytest.param("completions: -1", "spec.completions: Invalid value: -1", id="less than nothing"),
        pytest.param(
            failing(f"action: FailIndex, {CODES}"), "requires the backoffLimitPerIndex to be set", id="no index to fail"
        ),
        pytest.param(failing(f"action: Explode, {CODES}"), 'Unsupported value: "Explode"', id="action"),
        pytest.param(
            failing("action: Count"), "specifying one of OnExitCodes and OnPodConditions", id="matches nothing"
        ),
        pytest.param(
            failing(f"action: Count, {CODES}, onPodConditions: [{{type: A}}]"), "specifying both", id="matches by both"
        ),
        pytest.param(
            failing("action: Count, onExitCodes: {operator: In, values: [2, 1]}"), "must be ordered", id="order"
        ),
        pytest.param(
            failing("action: Count, onExitCodes: {operator: In, values: [0]}"), "must not be 0 for the In", id="success"
        ),
        pytest.param(
            failing("action: Count, onExitCodes: {operator: In, values: [1, 1]}"), "Duplicate value: 1", id="twice"
        ),
        pytest.param(
            failing("action: Count, onExitCodes: {containerName: z, operator: In, values: [1]}"),
            "must be one of the container or initContainer names",
            id="no such container",
        ),
        pytest.param(failing(*[f"action: Count, {CODES}"] * 21), "podFailurePolicy.rules: Too many: 21", id="21 rules"),
        pytest.param(
            f"{failing(f'action: Count, {CODES}')}, podReplacementPolicy: TerminatingOrFailed",
            'Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
            id="replaced too early",
        ),
        pytest.param(succeeding(), "at least one rules must be specified", id="no rule of success"),
        pytest.param(succeeding(""), "at least one of succeededCount or succeededIndexes", id="an empty rule"),
        pytest.param(succeeding("succeededIndexes: '4'"), "too large index", id="beyond the completions"),
        pytest.param(succeeding("succeededIndexes: '2,1'"), "non-increasing order", id="indexes out of order"),
        pytest.param(succeeding("succeededIndexes: 1-x"), "cannot convert string to integer", id="no index"),
        pytest.param(
            succeeding("succeededIndexes: '1', succeededCount: 2"), "less than or equal to 1", id="too many of"
        ),
        pytest.param("successPolicy: {rules: [{succeededCount: 1}]}", "requires indexed completion", id="no indexes"),
        pytest.param("managedBy: mine", "must be a domain-prefixed path", id="a manager without domain"),
        pytest.param(f"managedBy: example.com/{'x' * 60}", "may not be more than 63 bytes", id="a long manager"),
    ],
)
def test_B21_jobs_with_bad_policies_are_told_why(text: str, fault: str) -> None:
    found = create_faults(Job, spec(JOB_POD, text))
    assert any(fault in line for line in found), found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(
            f"{{metadata: {{name: {'x' * 62}, namespace: web}}, spec: {{{JOB_POD}, {INDEXED}}}}}",
            "will not able to create pod with invalid DNS label",
            id="no room for the index",
        ),
        pytest.param(
            spec(JOB_POD.replace("{spec:", "{metadata: {labels: {job-name: other}}, spec:")),
            "must be 'x'",
            id="a label that is the server's",
        ),
    ],
)
def test_B17_jobs_whose_pods_could_not_be_are_refused(text: str, fault: str) -> None:
    found = create_faults(Job, text)
    assert any(fault in line for line in found), found


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        pytest.param("parallelism: 1", "parallelism: 5", "", id="parallelism"),
        pytest.param("suspend: true", "suspend: false", "", id="suspension"),
        pytest.param("completions: 1", "completions: 2", "spec.completions: Invalid value", id="completions"),
        pytest.param(
            INDEXED,
            INDEXED.replace("completions: 4, parallelism: 2", "completions: 3, parallelism: 3"),
            "",
            id="elastic",
        ),
        pytest.param("completions: 2", "completions: 2, completionMode: Indexed", "spec.completionMode", id="mode"),
        pytest.param("backoffLimit: 1", "backoffLimit: 2", "", id="the limit"),
        pytest.param("managedBy: a.b/c", "managedBy: a.b/d", "spec.managedBy: Invalid value", id="manager"),
        pytest.param(
            f"{INDEXED}, backoffLimitPerIndex: 1",
            f"{INDEXED}, backoffLimitPerIndex: 2",
            "spec.backoffLimitPerIndex",
            id="limit of each",
        ),
        pytest.param(
            failing(f"action: Count, {CODES}"),
            failing(f"action: FailJob, {CODES}"),
            "spec.podFailurePolicy",
            id="rules",
        ),
        pytest.param(
            succeeding("succeededCount: 1"), succeeding("succeededCount: 2"), "spec.successPolicy", id="success"
        ),
    ],
)
def test_B21_how_pods_are_counted_stays_as_it_is(before: str, after: str, fault: str) -> None:
    found = update_faults(Job, spec(OWN_POD, before), spec(OWN_POD, after))
    assert (found == []) if not fault else any(fault in line for line in found), found


def _conditions(*kinds: str) -> str:
    listed = ", ".join(f"{{type: {kind}, status: 'True'}}" for kind in kinds)
    return f"conditions: [{listed}]"


FINISHED = f"{_conditions('SuccessCriteriaMet', 'Complete')}, startTime: '2026-01-01T00:00:00Z'"


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        pytest.param("{}", "{active: 2, ready: 1, terminating: 1}", "", id="counts"),
        pytest.param("{}", "{active: 1, ready: 2}", "cannot set more ready pods than active", id="ready"),
        pytest.param("{}", "{failed: -1}", "status.failed: Invalid value: -1", id="less than none"),
        pytest.param("{}", f"{{{_conditions('Mine')}}}", "", id="a condition of one's own"),
        pytest.param("{}", f"{{{_conditions('Failed')}}}", "without the FailureTarget", id="failed unannounced"),
        pytest.param("{}", f"{{{FINISHED}, completionTime: '2026-01-01T00:00:01Z'}}", "", id="complete"),
        pytest.param(
            "{}", f"{{{FINISHED}}}", "completionTime is required for Complete jobs", id="complete without time"
        ),
        pytest.param(
            "{}",
            f"{{{FINISHED}, completionTime: '2025-01-01T00:00:00Z'}}",
            "cannot be set before",
            id="ends before it began",
        ),
        pytest.param(
            "{}", "{completionTime: '2026-01-01T00:00:00Z'}", "when there is no Complete", id="an end too early"
        ),
        pytest.param(
            "{}",
            f"{{{_conditions('FailureTarget', 'SuccessCriteriaMet')}}}",
            "cannot set FailureTarget=True",
            id="both",
        ),
        pytest.param(
            "{}",
            f"{{{_conditions('FailureTarget', 'Failed')}, active: 1}}",
            "active>0 is invalid for finished job",
            id="finished and active",
        ),
        pytest.param(
            f"{{{_conditions('FailureTarget', 'Failed')}}}",
            "{}",
            "cannot disable the Failed=True",
            id="brought to life",
        ),
        pytest.param("{succeeded: 2}", "{succeeded: 1}", "cannot decrease the succeeded counter", id="unsucceeded"),
        pytest.param("{}", "{completedIndexes: '0'}", "when non-indexed completion mode", id="indexes of none"),
        pytest.param(
            "{}", "{uncountedTerminatedPods: {succeeded: [a], failed: [a]}}", "failed[0]: Duplicate", id="counted twice"
        ),
        pytest.param("{startTime: '2026-01-01T00:00:00Z'}", "{}", "startTime cannot be removed", id="never begun"),
    ],
)
def test_B21_a_status_must_be_true_in_itself(before: str, after: str, fault: str) -> None:
    old, new = (_with_status(text) for text in (before, after))
    found = [str(error) for error in strategy_of(Job).validate_status_update(context("status"), new, old)]
    assert (found == []) if not fault else any(fault in line for line in found), found


def _with_status(text: str) -> Any:
    job = made(Job, spec(JOB_POD))
    job.status.CopyFrom(read(Job, f"{{status: {text}}}").status)
    return job


def test_B23_jobs_of_a_cron_job_select_their_pods_by_themselves() -> None:
    template = "jobTemplate: {spec: {manualSelector: true, selector: {matchLabels: {a: b}}, " + JOB_POD + "}}"
    found = create_faults(CronJob, spec("schedule: '* * * * *'", template))
    assert any("`selector` will be auto-generated" in line for line in found)
    assert any("manualSelector: Unsupported value: true" in line for line in found)


def test_B23_what_a_job_template_leaves_open_is_left_to_its_jobs() -> None:
    found = made(CronJob, spec("schedule: '* * * * *'", f"jobTemplate: {{spec: {{{JOB_POD}}}}}"))
    job = found.spec.jobTemplate.spec
    assert [field.name for field, _ in job.ListFields()] == ["template"]
    assert job.template.spec.dnsPolicy == "ClusterFirst"
    given = made(CronJob, spec("schedule: '* * * * *'", f"jobTemplate: {{spec: {{parallelism: 1, {JOB_POD}}}}}"))
    assert given.spec.jobTemplate.spec.parallelism == 1
