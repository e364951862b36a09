"""Every invariant can fail: a history that breaks it, and it alone, is told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tiphys.api.apps.v1.apps_pb2 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from tiphys.api.autoscaling.v2.autoscaling_pb2 import HorizontalPodAutoscaler
from tiphys.api.batch.v1.batch_pb2 import CronJob, Job
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys.api.policy.v1.policy_pb2 import PodDisruptionBudget
from tiphys_apimachinery.meta import namespaced_name
from tiphys_cluster.testing.invariants import INVARIANTS, guard
from tiphys_cluster.testing.world import World


class History:
    """Objects come and change, and the guard looks at each."""

    def __init__(self) -> None:
        self.running: dict[str, set[str]] = {}
        self.now = 0.0
        self.guard = guard(World(), self.running, lambda: self.now)

    def put(self, obj: Any) -> None:
        known = self.guard.world.of(type(obj))
        before = known.get(namespaced_name(obj))
        kept = type(obj).FromString(obj.SerializeToString())
        known[namespaced_name(obj)] = kept
        self.guard.look(before, kept)

    def end(self, obj: Any) -> None:
        before = self.guard.world.of(type(obj)).pop(namespaced_name(obj))
        self.guard.look(before, None)

    def names(self) -> set[str]:
        return {breach.name for breach in self.guard.breaches}


def make(kind: Any, name: str, owner: Any = None) -> Any:
    made = kind()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = (
        name,
        "" if kind is Node else "default",
        f"uid-{name}",
    )
    if owner is not None:
        made.metadata.ownerReferences.add(
            kind=type(owner).DESCRIPTOR.name, name=owner.metadata.name, uid=owner.metadata.uid, controller=True
        )
    return made


def node(pods: str = "2", cpu: str = "1") -> Node:
    made: Node = make(Node, "n1")
    made.status.allocatable["pods"].string, made.status.allocatable["cpu"].string = pods, cpu
    return made


def bound(name: str, owner: Any = None, cpu: str = "") -> Pod:
    made: Pod = make(Pod, name, owner)
    made.spec.nodeName = "n1"
    container = made.spec.containers.add(name="c")
    if cpu:
        container.resources.requests["cpu"].string = cpu
    return made


def moves(history: History, *, breaks: bool) -> None:
    pod = bound("p")
    history.put(pod)
    pod.spec.nodeName = "n2" if breaks else "n1"
    history.put(pod)


def runs_twice(history: History, *, breaks: bool) -> None:
    history.running["default/p"] = {"one", "other"} if breaks else {"one"}
    history.put(bound("p"))


def fills_a_node(history: History, *, breaks: bool) -> None:
    history.put(node())
    for number in range(3 if breaks else 2):
        history.put(bound(f"p{number}", cpu="100m"))


def asks_too_much(history: History, *, breaks: bool) -> None:
    history.put(node())
    history.put(bound("p0", cpu="600m"))
    history.put(bound("p1", cpu="600m" if breaks else "400m"))


def replicas(history: History, *, breaks: bool) -> None:
    owner = make(ReplicaSet, "r")
    owner.spec.replicas = 2
    history.put(owner)
    for number in range(3 if breaks else 2):
        history.put(make(Pod, f"p{number}", owner))


def surges(history: History, *, breaks: bool) -> None:
    deployment = make(Deployment, "d")
    deployment.spec.replicas, deployment.spec.strategy.type = 4, "RollingUpdate"
    deployment.spec.strategy.rollingUpdate.maxSurge.intVal = 1
    history.put(deployment)
    for name, size in (("old", 4), ("new", 2 if breaks else 1)):
        owned = make(ReplicaSet, name, deployment)
        owned.spec.replicas = size
        history.put(owned)


def works_too_wide(history: History, *, breaks: bool) -> None:
    job = make(Job, "j")
    job.spec.parallelism, job.spec.completions = 2, 5
    history.put(job)
    for number in range(3 if breaks else 2):
        history.put(make(Pod, f"p{number}", job))


def works_too_often(history: History, *, breaks: bool) -> None:
    job = make(Job, "j")
    job.spec.parallelism, job.spec.completions = 2, 2
    history.put(job)
    done = make(Pod, "done", job)
    done.status.phase = "Succeeded"
    history.put(done)
    for number in range(2 if breaks else 1):
        history.put(make(Pod, f"p{number}", job))


def overdraws(history: History, *, breaks: bool) -> None:
    quota = make(ResourceQuota, "q")
    quota.spec.hard["pods"].string = "1"
    history.put(quota)
    for number in range(2 if breaks else 1):
        history.put(make(Pod, f"p{number}"))


def daemons(history: History, *, breaks: bool) -> None:
    owner = make(DaemonSet, "ds")
    history.put(owner)
    for number in range(2 if breaks else 1):
        history.put(bound(f"p{number}", owner))


def lacks_a_slot(history: History, *, breaks: bool) -> None:
    made = node()
    if not breaks:
        made.status.allocatable["example.com/slot"].string = "1"
    history.put(made)
    pod = bound("p0")
    pod.spec.containers[0].resources.requests["example.com/slot"].string = "1"
    history.put(pod)


def changes_hands(history: History, *, breaks: bool) -> None:
    one, other = make(ReplicaSet, "one"), make(ReplicaSet, "other")
    for owner in (one, other):
        owner.spec.replicas = 1
        history.put(owner)
    history.put(make(Pod, "p", one))
    if not breaks:
        history.put(make(Pod, "p"))
    history.put(make(Pod, "p", other))


def preempts(history: History, *, breaks: bool) -> None:
    wants = make(Pod, "wants")
    wants.spec.priority = 10
    history.put(wants)
    victim = make(Pod, "victim")
    victim.spec.priority = 10 if breaks else 9
    history.put(victim)
    victim.status.conditions.add(type="DisruptionTarget", status="True", reason="PreemptionByScheduler")
    history.put(victim)


def skips_an_ordinal(history: History, *, breaks: bool) -> None:
    owner = make(StatefulSet, "s")
    owner.spec.replicas = 3
    history.put(owner)
    for number in (0, 2 if breaks else 1):
        history.put(make(Pod, f"s-{number}", owner))


def goes_beyond_its_ordinals(history: History, *, breaks: bool) -> None:
    owner = make(StatefulSet, "s")
    owner.spec.replicas, owner.spec.podManagementPolicy = 3, "Parallel"
    history.put(owner)
    history.put(make(Pod, f"s-{3 if breaks else 2}", owner))


def repeats_an_index(history: History, *, breaks: bool) -> None:
    job = make(Job, "j")
    job.spec.parallelism, job.spec.completions, job.spec.completionMode = 4, 4, "Indexed"
    history.put(job)
    for number in range(2):
        pod = make(Pod, f"p{number}", job)
        pod.metadata.annotations["batch.kubernetes.io/job-completion-index"] = "0" if breaks else str(number)
        history.put(pod)


def starts_after_its_end(history: History, *, breaks: bool) -> None:
    job = make(Job, "j")
    job.spec.parallelism = 4
    if breaks:
        job.status.conditions.add(type="Failed", status="True")
    history.put(job)
    history.put(make(Pod, "p", job))


def begins_again(history: History, *, breaks: bool) -> None:
    job = make(Job, "j")
    job.status.conditions.add(type="Complete", status="True")
    history.put(job)
    if breaks:
        job.status.ClearField("conditions")
    history.put(job)


def uncounts(history: History, *, breaks: bool) -> None:
    job = make(Job, "j")
    job.status.succeeded = 2
    history.put(job)
    job.status.succeeded = 1 if breaks else 3
    history.put(job)


def runs_overlap(history: History, *, breaks: bool) -> None:
    owner = make(CronJob, "c")
    owner.spec.concurrencyPolicy = "Forbid" if breaks else "Allow"
    history.put(owner)
    for number in range(2):
        history.put(make(Job, f"c-{number}", owner))


def overdraws_cpu(history: History, *, breaks: bool) -> None:
    quota = make(ResourceQuota, "q")
    quota.spec.hard["requests.cpu"].string = "500m"
    history.put(quota)
    for number in range(3 if breaks else 2):
        pod = make(Pod, f"p{number}")
        pod.spec.containers.add(name="c").resources.requests["cpu"].string = "200m"
        history.put(pod)


def overdraws_storage(history: History, *, breaks: bool) -> None:
    quota = make(ResourceQuota, "q")
    quota.spec.hard["requests.storage"].string = "3Gi"
    history.put(quota)
    for number in range(2):
        made = make(PersistentVolumeClaim, f"c{number}")
        made.spec.resources.requests["storage"].string = "2Gi" if breaks else "1Gi"
        history.put(made)


def evicts(history: History, *, breaks: bool) -> None:
    guarded = make(PodDisruptionBudget, "b")
    guarded.spec.minAvailable.intVal = 2 if breaks else 1
    guarded.spec.selector.matchLabels["app"] = "a"
    history.put(guarded)
    pods = [ready(f"p{number}") for number in range(2)]
    for pod in pods:
        history.put(pod)
    history.put(told_to_go(pods[0], "EvictionByEvictionAPI"))


def wishes_too_much(history: History, *, breaks: bool) -> None:
    made = make(HorizontalPodAutoscaler, "h")
    made.spec.minReplicas, made.spec.maxReplicas = 1, 4
    made.status.desiredReplicas = 5 if breaks else 4
    history.put(made)


def claim(name: str, volume: str = "") -> PersistentVolumeClaim:
    made: PersistentVolumeClaim = make(PersistentVolumeClaim, name)
    made.spec.volumeName = volume
    return made


def shares_a_volume(history: History, *, breaks: bool) -> None:
    history.put(claim("a", "v1"))
    history.put(claim("b", "v1" if breaks else "v2"))


def changes_its_volume(history: History, *, breaks: bool) -> None:
    history.put(claim("a", "v1" if breaks else ""))
    history.put(claim("a", "v2"))


def is_given_away(history: History, *, breaks: bool) -> None:
    volume = make(PersistentVolume, "v")
    volume.spec.claimRef.uid = "one" if breaks else ""
    history.put(volume)
    volume.spec.claimRef.uid = "other"
    history.put(volume)


def goes_under_its_pod(history: History, *, breaks: bool) -> None:
    pod = make(Pod, "p")
    pod.spec.volumes.add(name="v").volumeSource.persistentVolumeClaim.claimName = "a"
    history.put(pod)
    if breaks:
        history.running["default/p"] = {pod.metadata.uid}
    history.put(claim("a"))
    history.end(claim("a"))


def is_not_kept(history: History, *, breaks: bool) -> None:
    owner = make(StatefulSet, "s")
    owner.spec.volumeClaimTemplates.add().metadata.name = "data"
    owner.spec.persistentVolumeClaimRetentionPolicy.whenScaled = "Retain" if breaks else "Delete"
    history.put(owner)
    made = claim("data-s-1")
    made.metadata.ownerReferences.add(kind="Pod", name="s-1", uid="gone")
    history.put(made)
    history.end(made)


def ready(name: str) -> Pod:
    made: Pod = make(Pod, name)
    made.metadata.labels["app"] = "a"
    made.status.conditions.add(type="Ready", status="True")
    return made


def told_to_go(pod: Pod, reason: str = "") -> Pod:
    going = Pod.FromString(pod.SerializeToString())
    going.metadata.deletionTimestamp.seconds = 1
    if reason:
        going.status.conditions.add(type="DisruptionTarget", status="True", reason=reason)
    return going


CASES: dict[str, tuple[str, Callable[..., None]]] = {
    "a pod changes its node": ("bound_once", moves),
    "two pods of one name run": ("one_of_a_name_runs", runs_twice),
    "more pods than a node takes": ("node_holds", fills_a_node),
    "more CPU than a node has": ("node_holds", asks_too_much),
    "a replica too many": ("replica_set_has_no_more", replicas),
    "more than the surge": ("deployment_keeps_its_surge", surges),
    "more than the parallelism": ("job_runs_no_more_than_it_may", works_too_wide),
    "more than the completions": ("job_runs_no_more_than_it_may", works_too_often),
    "more than the quota": ("quota_holds", overdraws),
    "two daemons on a node": ("one_daemon_a_node", daemons),
    "a resource that the node lacks": ("node_holds", lacks_a_slot),
    "a pod taken from its owner": ("owner_is_kept", changes_hands),
    "room made for an equal": ("victims_are_lesser", preempts),
    "an ordinal before the one below": ("stateful_set_has_its_ordinals", skips_an_ordinal),
    "an ordinal too high": ("stateful_set_has_its_ordinals", goes_beyond_its_ordinals),
    "two pods of one index": ("one_pod_an_index", repeats_an_index),
    "a pod of a Job that is over": ("job_that_is_over_starts_nothing", starts_after_its_end),
    "a Job that was over": ("job_ends_once", begins_again),
    "successes taken back": ("job_ends_once", uncounts),
    "two runs of a CronJob": ("runs_do_not_overlap", runs_overlap),
    "more CPU than the quota": ("quota_holds", overdraws_cpu),
    "more storage than the quota": ("quota_holds", overdraws_storage),
    "an eviction too many": ("budget_is_kept", evicts),
    "an autoscaler beyond its bounds": ("autoscaler_keeps_its_bounds", wishes_too_much),
    "a volume of two claims": ("claim_keeps_its_volume", shares_a_volume),
    "a claim with another volume": ("claim_keeps_its_volume", changes_its_volume),
    "a volume given to another claim": ("volume_keeps_its_claim", is_given_away),
    "a claim that goes under its pod": ("claim_outlives_its_pod", goes_under_its_pod),
    "a claim that was to stay": ("claim_is_retained", is_not_kept),
}


@pytest.mark.parametrize(("name", "happens"), CASES.values(), ids=CASES)
def test_M15_breach_is_told_of(name: str, happens: Callable[..., None]) -> None:
    broken, kept = History(), History()
    happens(broken, breaks=True)
    happens(kept, breaks=False)
    assert broken.names() == {name}
    assert kept.names() == set()


def test_every_invariant_has_a_history_that_breaks_it() -> None:
    assert {name for name, _ in CASES.values()} == set(INVARIANTS)


def test_a_set_told_to_shrink_may_have_its_pods_until_it_has_seen_it() -> None:
    history = History()
    owner = make(ReplicaSet, "r")
    owner.spec.replicas, owner.metadata.generation = 3, 1
    owner.status.observedGeneration = 1
    history.put(owner)
    owner.spec.replicas, owner.metadata.generation = 1, 2
    history.put(owner)
    for number in range(3):
        history.put(make(Pod, f"p{number}", owner))
    assert history.names() == set()
    owner.status.observedGeneration, owner.status.replicas = 2, 1
    history.put(owner)
    history.put(make(Pod, "p4", owner))
    assert history.names() == {"replica_set_has_no_more"}


@pytest.mark.parametrize(
    ("waits_s", "breaches"), [(1.0, set()), (200.0, {"budget_is_kept"})], ids=["just now", "long ago"]
)
def test_what_was_lost_just_now_is_not_the_fault_of_an_eviction(waits_s: float, breaches: set[str]) -> None:
    history = History()
    guarded = make(PodDisruptionBudget, "b")
    guarded.spec.minAvailable.intVal = 2
    guarded.spec.selector.matchLabels["app"] = "a"
    history.put(guarded)
    pods = [ready(f"p{number}") for number in range(3)]
    for pod in pods:
        history.put(pod)
    history.put(told_to_go(pods[0]))
    history.now += waits_s
    # The budget's status is written anew: by now it knows.
    history.put(guarded)
    history.put(told_to_go(pods[1], "EvictionByEvictionAPI"))
    assert history.names() == breaches
