"""Work that meets bounds: quotas, autoscalers, nodes that are too small for all, volumes."""

from __future__ import annotations

from random import Random

from tests.integration.simulation.deeds import Drawn, Named, delete, lose_pod, make, named, scale, workload
from tiphys.api.apps.v1.apps_pb2 import Deployment, ReplicaSet, StatefulSet
from tiphys.api.autoscaling.v2.autoscaling_pb2 import HorizontalPodAutoscaler
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass
from tiphys.api.storage.v1.storage_pb2 import StorageClass
from tiphys_cluster.testing.cluster import Cluster
from tiphys_cluster.testing.hollow_volumes import PROVISIONER

TIGHT = "tight"
SLOT = "example.com/slot"
SLOTS_OF_A_NODE = 2


def tight(rng: Random) -> Drawn:
    """Two sets that together want more than their namespace may have."""
    space = Namespace()
    space.metadata.name = TIGHT
    quota = named(ResourceQuota, TIGHT, TIGHT)
    hard = rng.choice(({"requests.cpu": "1"}, {"requests.memory": "500Mi"}, {"pods": "5"}))
    for name, amount in hard.items():
        quota.spec.hard[name].string = amount
    drawn = Drawn([make(space, quota, note=f"with {hard}")])
    for name in ("left", "right"):
        made = workload(ReplicaSet, name, namespace=TIGHT, cpu="200m", memory="100Mi")
        made.spec.replicas = rng.randint(2, 6)
        drawn.first.append(make(made, note=f"with {made.spec.replicas}"))
        drawn.later.extend(
            (scale(ReplicaSet, name, 6, namespace=TIGHT), lose_pod(f"app={name}", namespace=TIGHT)),
        )
    return drawn


def autoscaled(rng: Random) -> Drawn:
    """A Deployment that follows its load; each of its pods is to bear 100m."""
    made = workload(Deployment, "elastic", cpu="200m")
    scaler = named(HorizontalPodAutoscaler, "elastic")
    target = scaler.spec.scaleTargetRef
    target.apiVersion, target.kind, target.name = "apps/v1", "Deployment", "elastic"
    scaler.spec.minReplicas, scaler.spec.maxReplicas = 1, 6
    metric = scaler.spec.metrics.add(type="Resource")
    metric.resource.name = "cpu"
    metric.resource.target.type, metric.resource.target.averageUtilization = "Utilization", 50
    return Drawn([_load(rng), make(made, scaler)], [_load, _load, lose_pod("app=elastic")])


def _load(rng: Random) -> Named:
    pods = rng.randint(1, 8)

    async def load(cluster: Cluster) -> None:
        cluster.metrics.loads["elastic"] = 100 * pods

    return f"load for {pods} pods of elastic", load


def priorities(rng: Random) -> Drawn:
    """Two sets for slots of which there are too few: the one of the higher priority gets its share."""
    drawn = Drawn([])
    for name, priority in (("lesser", 10), ("greater", 1000)):
        rank = PriorityClass(value=priority)
        rank.metadata.name = name
        made = workload(ReplicaSet, name, **{SLOT: "1"})
        made.spec.template.spec.containers[0].resources.limits[SLOT].string = "1"
        made.spec.template.spec.priorityClassName = name
        made.spec.replicas = rng.randint(0, 8)
        drawn.first.append(make(rank, made, note=f"with {made.spec.replicas}"))
        drawn.later.extend((scale(ReplicaSet, name, 8), lose_pod(f"app={name}")))
    return drawn


def claims(rng: Random) -> Drawn:
    """A StatefulSet with a volume for each pod, kept or not when the pod or the set goes."""
    kind = StorageClass(provisioner=PROVISIONER, reclaimPolicy="Delete")
    kind.metadata.name = "hollow"
    kind.volumeBindingMode = rng.choice(("Immediate", "WaitForFirstConsumer"))
    made = workload(StatefulSet, "keeper", cpu="100m")
    made.spec.replicas, made.spec.serviceName = rng.randint(1, 4), "all"
    made.spec.podManagementPolicy = rng.choice(("OrderedReady", "Parallel"))
    kept = made.spec.persistentVolumeClaimRetentionPolicy
    kept.whenScaled, kept.whenDeleted = rng.choice(("Retain", "Delete")), rng.choice(("Retain", "Delete"))
    template = made.spec.volumeClaimTemplates.add()
    template.metadata.name = "data"
    template.spec.accessModes.append("ReadWriteOnce")
    template.spec.storageClassName = "hollow"
    template.spec.resources.requests["storage"].string = "1Gi"
    one = scale(StatefulSet, "keeper", 4)
    note = f"{kind.volumeBindingMode}, scaled {kept.whenScaled}, deleted {kept.whenDeleted}"
    return Drawn([make(kind, made, note=note)], [one, one, one, lose_pod("app=keeper"), delete(StatefulSet, "keeper")])
