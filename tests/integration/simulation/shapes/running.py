"""Sets of pods that run for ever."""

from __future__ import annotations

from random import Random

from tests.integration.simulation.deeds import (
    NAMESPACE,
    Drawn,
    Named,
    change,
    delete,
    evict,
    lose_pod,
    make,
    named,
    roll,
    scale,
    workload,
)
from tiphys.api.apps.v1.apps_pb2 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.policy.v1.policy_pb2 import PodDisruptionBudget
from tiphys_cluster.testing.cluster import Cluster


def deployments(rng: Random) -> Drawn:
    """Three Deployments, of which one has a budget that its owner's size decides."""
    drawn = Drawn([])
    budget = named(PodDisruptionBudget, "app1")
    budget.spec.selector.matchLabels["app"] = "app1"
    budget.spec.maxUnavailable.intVal = 1
    drawn.first.append(make(budget, note="'s budget"))
    for name in ("app0", "app1", "app2"):
        made = workload(Deployment, name, cpu="200m")
        made.spec.replicas = rng.randint(1, 8)
        if rng.random() < 0.3:
            made.spec.strategy.type = "Recreate"
        drawn.first.append(make(made, note=f"with {made.spec.replicas}"))
        one = (scale(Deployment, name, 12), roll(Deployment, name))
        drawn.later.extend((*one, *one, lose_pod(f"app={name}"), evict(name), delete(Deployment, name)))
    return drawn


def stateful(rng: Random) -> Drawn:
    """A StatefulSet, ordered or not."""
    made = workload(StatefulSet, "app3", cpu="200m")
    made.spec.replicas, made.spec.serviceName = rng.randint(1, 6), "all"
    made.spec.podManagementPolicy = rng.choice(("OrderedReady", "Parallel"))
    one = (scale(StatefulSet, "app3", 5), roll(StatefulSet, "app3"))
    return Drawn([make(made, note=f"with {made.spec.replicas}")], [*one, *one, lose_pod("app=app3"), evict("app3")])


def daemons(rng: Random) -> Drawn:
    """A pod on every node; an update takes the old one away first, or lets the new one come first."""
    made = workload(DaemonSet, "app4")
    surge = rng.choice(("0", "1", "50%"))
    rolling = made.spec.updateStrategy.rollingUpdate
    if surge != "0":
        rolling.maxUnavailable.intVal = 0
        if surge.endswith("%"):
            rolling.maxSurge.type, rolling.maxSurge.strVal = 1, surge
        else:
            rolling.maxSurge.intVal = int(surge)
    one = roll(DaemonSet, "app4")
    return Drawn([make(made, note=f"on every node, surge {surge}")], [one, one, lose_pod("app=app4")])


def guarded(rng: Random) -> Drawn:
    """A Deployment whose budget leaves room for one or two, or for none, and of which many are asked to go at once."""
    made = workload(Deployment, "guarded", cpu="100m")
    made.spec.replicas = rng.randint(2, 6)
    budget = named(PodDisruptionBudget, "guarded")
    budget.spec.selector.matchLabels["app"] = "guarded"
    if rng.random() < 0.5:
        budget.spec.minAvailable.intVal = made.spec.replicas - rng.randint(0, 2)
    else:
        budget.spec.minAvailable.type, budget.spec.minAvailable.strVal = 1, "60%"
    many = evict("guarded", at_once=4)
    return Drawn([make(budget, made)], [many, many, evict("guarded"), roll(Deployment, "guarded")])


def overlapping(rng: Random) -> Drawn:
    """Two sets that select the same pods, and pods that are nobody's until one of them takes them."""
    kind = rng.choice((ReplicaSet, Deployment))
    drawn = Drawn([])
    for name in ("twin0", "twin1"):
        made = workload(kind, name, "twin")
        made.spec.replicas = rng.randint(1, 4)
        drawn.first.append(make(made, note=f"with {made.spec.replicas}, selects what its twin does"))
        drawn.later.extend((scale(kind, name, 5), scale(kind, name, 5)))
    drawn.later.extend((lose_pod("app=twin"), _let_go))
    if kind is ReplicaSet:
        # A Deployment's sets select by the hash of its template too: a pod made by hand stays nobody's.
        drawn.later.append(_free_pod)
    return drawn


def _free_pod(rng: Random) -> Named:
    """A pod made by hand, that one of the sets adopts."""
    made = named(Pod, f"free{rng.randrange(1 << 16)}")
    made.metadata.labels.update({"app": "twin", "part": "all"})
    made.spec.containers.add(name="c", image="v1")
    return make(made, note="by hand")


def _let_go(rng: Random) -> Named:
    """A pod loses the label by which it was chosen, and is taken away a while later."""
    at, length_s = rng.randrange(8), rng.choice((0.0, 20.0))

    async def relabel(cluster: Cluster) -> None:
        pods = (await cluster.client.list(Pod, NAMESPACE, label_selector="app=twin")).items
        if pods:
            name = pods[at % len(pods)].metadata.name
            await cluster.client.patch(Pod, name, NAMESPACE, {"metadata": {"labels": {"app": "alone"}}})
            await cluster.clock.sleep(length_s)
            await cluster.client.delete(Pod, name, NAMESPACE, absent_ok=True)

    return "let a pod of twin go", relabel


def partitioned(rng: Random) -> Drawn:
    """A StatefulSet of which only the upper ordinals are to be rolled, until all are."""
    made = workload(StatefulSet, "split", cpu="100m")
    made.spec.replicas, made.spec.serviceName = 4, "all"
    made.spec.podManagementPolicy = rng.choice(("OrderedReady", "Parallel"))
    made.spec.updateStrategy.rollingUpdate.partition = 2

    def part(rng: Random) -> Named:
        number = rng.randint(0, 4)
        return change(StatefulSet, "split", _partition(number), note=f"partition {number}:")

    one = roll(StatefulSet, "split")
    whole = change(StatefulSet, "split", _partition(0), note="roll all of")
    return Drawn([make(made)], [one, one, part, lose_pod("app=split")], [whole])


def _partition(number: int) -> dict[str, object]:
    return {"updateStrategy": {"rollingUpdate": {"partition": number}}}
