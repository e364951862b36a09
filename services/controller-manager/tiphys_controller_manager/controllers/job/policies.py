"""The policies of a Job's spec: what a failed pod means, and which indexes are enough.

Source: kubernetes pkg/controller/job/pod_failure_policy.go and success_policy.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tiphys.api.batch.v1 import batch_pb2
from tiphys_controller_manager.controllers.job.indexes import Indexes, parse_indexes
from tiphys_controller_manager.job_facts import Exit, JobFacts
from tiphys_controller_manager.pods import PodView

FAIL_JOB: Final = "FailJob"
FAIL_INDEX: Final = "FailIndex"
IGNORE: Final = "Ignore"
COUNT: Final = "Count"
_NO_FACTS: Final = JobFacts()


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the policy says of one failed pod; the message is there for FailJob."""

    action: str = COUNT
    message: str = ""

    @property
    def counts(self) -> bool:
        """Whether the failure counts against the limits."""
        return self.action != IGNORE


def facts_of(pod: PodView) -> JobFacts:
    """The facts of a pod; empty for one that no Job manages."""
    return pod.job or _NO_FACTS


def rule_on(spec: batch_pb2.JobSpec, pod: PodView) -> Ruling:
    """What the first rule that matches says of a failed pod; without one the failure counts."""
    if not spec.HasField("podFailurePolicy"):
        return Ruling()
    facts = facts_of(pod)
    for number, rule in enumerate(spec.podFailurePolicy.rules):
        if rule.HasField("onExitCodes"):
            ended = _match_exit(rule.onExitCodes, facts)
            why = (
                f"Container {ended.container} for pod {pod.key} failed with exit code {ended.code}"
                if ended is not None
                else ""
            )
        else:
            condition = _match_condition(rule, facts)
            why = f"Pod {pod.key} has condition {condition}" if condition else ""
        if why:
            message = f"{why} matching {rule.action} rule at index {number}"
            return Ruling(rule.action, message if rule.action == FAIL_JOB else "")
    return Ruling()


def success_message(spec: batch_pb2.JobSpec, done: Indexes) -> str:
    """Which rule of the success policy holds for the indexes that have succeeded; empty where none does."""
    if not spec.HasField("successPolicy") or not done.ranges:
        return ""
    for number, rule in enumerate(spec.successPolicy.rules):
        if _holds(rule, done, spec.completions):
            return f"Matched rules at index {number}"
    return ""


def _holds(rule: batch_pb2.SuccessPolicyRule, done: Indexes, completions: int) -> bool:
    if not rule.HasField("succeededIndexes"):
        return rule.HasField("succeededCount") and len(done) >= rule.succeededCount
    wanted = parse_indexes(rule.succeededIndexes, completions)
    if not wanted.ranges:
        return False
    have = wanted.overlap(done)
    return have == len(wanted) or (rule.HasField("succeededCount") and have >= rule.succeededCount)


def _match_exit(wanted: batch_pb2.PodFailurePolicyOnExitCodesRequirement, facts: JobFacts) -> Exit | None:
    for item in facts.exits:
        if item.code == 0 or (wanted.HasField("containerName") and item.container != wanted.containerName):
            continue
        if (item.code in wanted.values) == (wanted.operator == "In"):
            return item
    return None


def _match_condition(rule: batch_pb2.PodFailurePolicyRule, facts: JobFacts) -> str:
    patterns = {(item.type, item.status or "True") for item in rule.onPodConditions}
    return next((kind for kind, status in facts.conditions if (kind, status) in patterns), "")
