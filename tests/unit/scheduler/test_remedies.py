"""What explain says would help does help: each change that it names is made, and the pod fits where it says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random

import pytest

from tests.unit.scheduler.random_cluster import World
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.explain import explain
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework
from tiphys_scheduler.pod_info import amount, pod_info

_LESS = re.compile(r"request at most (\S+) of (\S+) instead of \S+")
_FREE = re.compile(r"free (\S+) of (\S+) there")


@dataclass
class Twin:
    """A cluster that is changed as a remedy says."""

    nodes: dict[str, Node]
    pods: list[Pod] = field(default_factory=list)

    def copy(self) -> Twin:
        return Twin(
            {name: Node.FromString(item.SerializeToString()) for name, item in self.nodes.items()}, [*self.pods]
        )

    def framework(self) -> tuple[Cache, Framework]:
        cache = Cache(Columns())
        for item in self.nodes.values():
            cache.set_node(item)
        for pod in self.pods:
            cache.set_pod(pod_info(pod))
        return cache, Framework(DEFAULT_PROFILE, cache.columns)

    def apply(self, text: str, example: str, pod: Pod) -> None:
        """Makes one change, to the pod or to the node that is named as example."""
        node = self.nodes[example]
        if text.startswith("tolerate "):
            for taint in text.removeprefix("tolerate ").split(", "):
                key, _, rest = taint.partition("=")
                value, _, effect = rest.rpartition(":")
                pod.spec.tolerations.add(key=key, operator="Equal", value=value, effect=effect)
        elif text == f"uncordon {example}":
            node.spec.unschedulable = False
        elif text == "drop the node selector or required node affinity":
            pod.spec.nodeSelector.clear()
            pod.spec.affinity.nodeAffinity.ClearField("requiredDuringSchedulingIgnoredDuringExecution")
        elif text == "end a pod there":
            self.pods.remove(next(other for other in self.pods if other.spec.nodeName == example))
        elif less := _LESS.fullmatch(text):
            pod.spec.containers[0].resources.requests[less[2]].string = less[1]
        elif free := _FREE.fullmatch(text):
            # As much more as is missing is the same as so much less in use.
            room = node.status.allocatable[free[2]]
            room.string = str(amount(free[2], room.string or "0") + amount(free[2], free[1]))
            if free[2] == "cpu":
                room.string += "m"
        else:
            pytest.fail(f"nobody knows how to do this: {text}")


@pytest.mark.parametrize("seed", range(30))
def test_C31_every_change_that_is_named_makes_the_pod_fit_where_it_says(seed: int) -> None:
    world = World(Random(seed), ("taints", "node affinity", "resources"))
    twin = Twin({item.metadata.name: item for item in world.cluster(6).nodes})
    for number in range(8):
        pod = world.pod(f"p{number}")
        cache, framework = twin.framework()
        found = explain(framework, pod_info(pod), cache.columns)
        assert bool(found.best) != bool(found.remedies)
        if found.best:
            pod.spec.nodeName = found.best
            twin.pods.append(pod)
        for remedy in found.remedies:
            changed, helped = twin.copy(), Pod()
            helped.CopyFrom(pod)
            for text in remedy.text.split(" and "):
                changed.apply(text, remedy.example, helped)
            assert changed.framework()[1].fits(pod_info(helped), remedy.example), remedy
