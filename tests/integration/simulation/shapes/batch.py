"""What runs to an end, well or badly, once or every minute."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.integration.simulation.deeds import Drawn, Named, change, lose_pod, make, named
from tiphys.api.batch.v1.batch_pb2 import CronJob, Job
from tiphys_cluster.testing.hollow_nodes import EXITS_WITH, FAILING_INDEXES, RUNS_FOR_S


def jobs(rng: Random) -> Drawn:
    """Jobs that succeed, although their pods are lost."""
    return Drawn([_make_job(rng)], [_make_job, _make_job, lose_pod("kind=job"), lose_pod("kind=job")])


def _make_job(rng: Random) -> Named:
    made = _job(f"job{rng.randrange(1 << 16)}", rng)
    made.spec.completionMode = rng.choice(("Indexed", "NonIndexed"))
    made.spec.completions, made.spec.parallelism = rng.randint(1, 6), rng.randint(1, 3)
    # A pod that is taken away counts as failed.
    made.spec.backoffLimit = 1000
    made.spec.podReplacementPolicy = rng.choice(("TerminatingOrFailed", "Failed"))
    return make(made, note=f"{made.spec.completions} times, {made.spec.parallelism} at once")


def failing_jobs(rng: Random) -> Drawn:
    """Jobs whose pods fail; what the machines do to them is none of their failures."""
    kinds: tuple[Callable[[Random], Named], ...] = (_gives_up, _ends_at_a_code, _fails_by_index, _is_content_early)
    chosen = rng.sample(kinds, 2)
    return Drawn([one(rng) for one in chosen], [*kinds])


def _gives_up(rng: Random) -> Named:
    made = _job(f"bad{rng.randrange(1 << 16)}", rng)
    made.spec.template.metadata.annotations[EXITS_WITH] = "1"
    made.spec.completions, made.spec.parallelism, made.spec.backoffLimit = 3, 2, rng.randint(0, 2)
    return make(made, note="that fails always")


def _ends_at_a_code(rng: Random) -> Named:
    made = _job(f"code{rng.randrange(1 << 16)}", rng)
    made.spec.template.metadata.annotations[EXITS_WITH] = "3"
    made.spec.completions, made.spec.parallelism = 2, 2
    rule = made.spec.podFailurePolicy.rules.add(action="FailJob")
    rule.onExitCodes.operator = "In"
    rule.onExitCodes.values.append(3)
    return make(made, note="that ends at code 3")


def _fails_by_index(rng: Random) -> Named:
    made = _job(f"some{rng.randrange(1 << 16)}", rng)
    made.spec.template.metadata.annotations[FAILING_INDEXES] = "1,3"
    made.spec.completionMode, made.spec.completions, made.spec.parallelism = "Indexed", 5, rng.randint(1, 5)
    made.spec.backoffLimitPerIndex = rng.randint(0, 1)
    return make(made, note="whose indexes 1 and 3 fail")


def _is_content_early(rng: Random) -> Named:
    made = _job(f"enough{rng.randrange(1 << 16)}", rng)
    made.spec.completionMode, made.spec.completions, made.spec.parallelism = "Indexed", 4, 4
    made.spec.successPolicy.rules.add(succeededIndexes="0")
    made.spec.backoffLimit = 1000
    return make(made, note="for which index 0 is enough")


def cron_jobs(rng: Random) -> Drawn:
    """A Job every minute, whether the last one is done or not. In the end no more are started."""
    made = named(CronJob, "cron")
    made.spec.schedule = "* * * * *"
    made.spec.concurrencyPolicy = rng.choice(("Allow", "Forbid", "Replace"))
    made.spec.successfulJobsHistoryLimit, made.spec.failedJobsHistoryLimit = 2, 1
    template = _job("", rng)
    template.spec.template.metadata.annotations[RUNS_FOR_S] = str(rng.choice((5, 50, 100)))
    template.spec.backoffLimit = 1000
    made.spec.jobTemplate.spec.CopyFrom(template.spec)

    def suspend(rng: Random) -> Named:
        is_held = rng.random() < 0.4
        return change(CronJob, "cron", {"suspend": is_held}, note="hold" if is_held else "let go on")

    return Drawn(
        [make(made, note=f"every minute, {made.spec.concurrencyPolicy}")],
        [suspend, lose_pod("kind=job")],
        [change(CronJob, "cron", {"suspend": True}, note="hold")],
    )


def _job(name: str, rng: Random) -> Any:
    made = named(Job, name)
    template = made.spec.template
    template.metadata.labels["kind"] = "job"
    template.metadata.annotations[RUNS_FOR_S] = str(rng.choice((1, 10, 60)))
    template.spec.restartPolicy = "Never"
    template.spec.containers.add(name="c", image="v1").resources.requests["cpu"].string = "100m"
    if not name.startswith("job"):
        # Lost with its node, or driven away: not the work's fault.
        template.metadata.labels["kind"] = "frail"
        rule = made.spec.podFailurePolicy.rules.add(action="Ignore")
        rule.onPodConditions.add(type="DisruptionTarget", status="True")
    return made
