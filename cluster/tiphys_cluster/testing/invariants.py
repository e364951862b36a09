"""What is never so, at no revision of no cluster, whatever fails: the list.

A new promise is a function in promises/, a line here, and a history that breaks it in its test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tiphys.api.apps.v1.apps_pb2 import ReplicaSet
from tiphys.api.autoscaling.v2.autoscaling_pb2 import HorizontalPodAutoscaler
from tiphys.api.batch.v1.batch_pb2 import Job
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_cluster.testing.guard import Guard, Promise
from tiphys_cluster.testing.promises import batch, limits, pods, sets, storage
from tiphys_cluster.testing.world import World

INVARIANTS: Final[Mapping[str, Promise]] = {
    promise.check.__name__: promise
    for promise in (
        Promise((Pod,), pods.bound_once),
        Promise((Pod,), pods.one_of_a_name_runs),
        Promise((Pod,), pods.node_holds),
        Promise((Pod, ReplicaSet, Job), pods.owner_is_kept),
        Promise((Pod,), pods.victims_are_lesser),
        Promise((Pod,), sets.replica_set_has_no_more),
        Promise((ReplicaSet,), sets.deployment_keeps_its_surge),
        Promise((Pod,), sets.stateful_set_has_its_ordinals),
        Promise((Pod,), sets.one_daemon_a_node),
        Promise((Pod,), batch.job_runs_no_more_than_it_may),
        Promise((Pod,), batch.one_pod_an_index),
        Promise((Pod,), batch.job_that_is_over_starts_nothing),
        Promise((Job,), batch.job_ends_once),
        Promise((Job,), batch.runs_do_not_overlap),
        Promise((Pod, PersistentVolumeClaim, Job), limits.quota_holds),
        Promise((Pod,), limits.budget_is_kept),
        Promise((HorizontalPodAutoscaler,), limits.autoscaler_keeps_its_bounds),
        Promise((PersistentVolumeClaim,), storage.claim_keeps_its_volume),
        Promise((PersistentVolume,), storage.volume_keeps_its_claim),
        Promise((PersistentVolumeClaim,), storage.claim_outlives_its_pod),
        Promise((PersistentVolumeClaim,), storage.claim_is_retained),
    )
}


def guard(world: World, running: Mapping[str, set[str]], now: Callable[[], float]) -> Guard:
    """One who watches over all of them. now is in seconds."""
    return Guard(world, running, now, INVARIANTS)
