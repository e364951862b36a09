"""Jobs and CronJobs with real containers: how each kind of Job ends, and what kubectl shows of it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster import MANIFESTS, Cluster, Kubectl, eventually

pytestmark = pytest.mark.containerd

MANIFEST = str(MANIFESTS / "jobs.yaml")


@pytest.fixture(scope="module")
def jobs(cluster: Cluster) -> Iterator[Kubectl]:
    """All Jobs of the manifest, begun at once."""
    kubectl = cluster.kubectl()
    kubectl("apply", "-f", MANIFEST)
    yield kubectl
    kubectl("delete", "cronjob,job", "--all", "--wait=true", "--timeout=60s")
    # Nothing holds the pods of a Job that is gone.
    eventually(lambda: not pods_of(kubectl, "hello"))


def pods_of(kubectl: Kubectl, job: str) -> list[Any]:
    """The pods of a Job."""
    found: list[Any] = kubectl.json("get", "pods", "-l", f"batch.kubernetes.io/job-name={job}")["items"]
    return found


def condition(job: Any, kind: str) -> Any:
    """The condition of a Job, once it is True."""
    found = [item for item in job["status"].get("conditions", []) if item["type"] == kind and item["status"] == "True"]
    return found[0] if found else None


def wait_for(kubectl: Kubectl, job: str, kind: str) -> Any:
    """The Job when it has the condition."""

    def is_so() -> Any:
        found = kubectl.json("get", "job", job)
        return found if condition(found, kind) else None

    return eventually(is_so)


def row_of(kubectl: Kubectl, *what: str) -> list[str]:
    """The cells that kubectl shows of one object."""
    return kubectl("get", *what, "--no-headers").split()


def test_B17_a_job_runs_to_its_end_and_kubectl_shows_it(jobs: Kubectl) -> None:
    jobs("wait", "--for=condition=complete", "job/hello", "--timeout=120s")
    assert row_of(jobs, "job", "hello")[:3] == ["hello", "Complete", "3/3"]
    assert "hello from a Job" in jobs("logs", "job/hello")
    pods = pods_of(jobs, "hello")
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded"] * 3
    assert not any(pod["metadata"].get("finalizers") for pod in pods)
    described = jobs("describe", "job", "hello")
    assert "0 Active (0 Ready) / 3 Succeeded / 0 Failed" in described
    assert "Completed" in described


def test_B18_a_job_of_false_fails_when_its_limit_is_reached(jobs: Kubectl) -> None:
    failed = wait_for(jobs, "no", "Failed")
    assert condition(failed, "Failed")["reason"] == "BackoffLimitExceeded"
    assert failed["status"]["failed"] == 2
    assert len(pods_of(jobs, "no")) == 2
    assert row_of(jobs, "job", "no")[:3] == ["no", "Failed", "0/1"]
    assert "BackoffLimitExceeded" in jobs("describe", "job", "no")


def test_B19_a_job_over_its_deadline_fails_and_its_pods_go(jobs: Kubectl) -> None:
    failed = wait_for(jobs, "slow", "Failed")
    assert condition(failed, "Failed")["reason"] == "DeadlineExceeded"
    begun = datetime.datetime.fromisoformat(failed["status"]["startTime"])
    announced = datetime.datetime.fromisoformat(condition(failed, "FailureTarget")["lastTransitionTime"])
    # Never before; how long after is the machine's affair.
    assert (announced - begun).total_seconds() >= 5
    eventually(lambda: not pods_of(jobs, "slow"))


def test_B21_each_index_has_its_pod_and_the_one_that_fails_is_lost(jobs: Kubectl) -> None:
    failed = wait_for(jobs, "each", "Failed")
    assert condition(failed, "Failed")["reason"] == "FailedIndexes"
    assert failed["status"]["completedIndexes"] == "0,1,3"
    assert failed["status"]["failedIndexes"] == "2"
    said = {jobs("logs", pod["metadata"]["name"]).strip() for pod in pods_of(jobs, "each")}
    assert said == {f"each-{number} {number}" for number in range(4)}


def test_B22_a_job_goes_some_time_after_its_end(jobs: Kubectl) -> None:
    eventually(lambda: not jobs("get", "job", "brief", "--ignore-not-found"))
    eventually(lambda: not pods_of(jobs, "brief"))


def test_B23_a_job_is_made_of_a_cron_job_by_hand(jobs: Kubectl) -> None:
    jobs("create", "job", "by-hand", "--from=cronjob/minutely")
    made = wait_for(jobs, "by-hand", "Complete")
    assert made["spec"]["completions"] == 1
    assert made["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    assert made["metadata"]["ownerReferences"][0]["name"] == "minutely"
    assert "a minute is over" in jobs("logs", "job/by-hand")


def test_B23_a_cron_job_runs_each_minute(jobs: Kubectl) -> None:
    def has_run() -> Any:
        found = jobs.json("get", "cronjob", "minutely")["status"]
        return found if found.get("lastScheduleTime") and found.get("lastSuccessfulTime") else None

    status = eventually(has_run)
    assert datetime.datetime.fromisoformat(status["lastScheduleTime"]).second == 0
    cells = row_of(jobs, "cronjob", "minutely")
    assert cells[0] == "minutely"
    assert cells[1:6] == ["*"] * 5
    assert cells[6:8] == ["<none>", "False"]
    runs = [job for job in jobs.json("get", "jobs")["items"] if job["metadata"]["name"].startswith("minutely-")]
    assert runs
    assert all(
        job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"].endswith(":00Z")
        for job in runs
    )
