"""Random clusters and pods for the exactness suite: small worlds, so that rules meet often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from tests.support.scheduler_reference.cluster import Cluster
from tests.unit.scheduler.objects import node, pod_message
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.scheduling_pb2 import NodeSelectorRequirement, PodAffinityTerm, TopologySpreadConstraint
from tiphys.api.meta.v1.meta_pb2 import LabelSelector

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
PARTS = ("taints", "node affinity", "ports", "resources", "spread", "inter-pod", "images", "disks")
_NAMESPACES = {"default": {"team": "a"}, "other": {"team": "b"}, "third": {}}
_MB = 1024 * 1024


@dataclass(frozen=True)
class World:
    """Makes objects in which the parts named take place."""

    random: Random
    parts: Sequence[str] = PARTS

    def cluster(self, most_nodes: int = 6) -> Cluster:
        """Nodes without pods."""
        count = self.random.randint(1, most_nodes)
        return Cluster([self.node(f"n{i}") for i in range(count)], [], {k: dict(v) for k, v in _NAMESPACES.items()})

    def node(self, name: str) -> Node:
        """A node; some lack labels that others have."""
        choose = self.random
        labels = {}
        if choose.random() < 0.9:
            labels[HOST] = name
        if choose.random() < 0.85:
            labels[ZONE] = choose.choice(("x", "y", "z"))
        if choose.random() < 0.5:
            labels["disk"] = choose.choice(("ssd", "hdd", "3"))
        more = {"gpu": str(choose.randint(0, 2))} if self._has("resources") and choose.random() < 0.3 else {}
        found = node(
            name,
            cpu=choose.choice(("0", "1", "2", "4")) if self._has("resources") else "8",
            memory=choose.choice(("0", "1Gi", "4Gi", "3000M")) if self._has("resources") else "16Gi",
            pods=choose.choice(("2", "5", "110")),
            labels=labels,
            unschedulable=self._has("taints") and choose.random() < 0.1,
            more=more,
        )
        if self._has("taints"):
            for _ in range(choose.randint(0, 2)):
                effect = choose.choice(("NoSchedule", "NoExecute", "PreferNoSchedule", "PreferNoSchedule"))
                taint = (choose.choice("kl"), choose.choice(("", "v")), effect)
                if taint not in [(t.key, t.value, t.effect) for t in found.spec.taints]:
                    found.spec.taints.add(key=taint[0], value=taint[1], effect=taint[2])
        if self._has("images"):
            for image in ("busybox:latest", "registry/app:v1"):
                if choose.random() < 0.5:
                    found.status.images.add(names=[image], sizeBytes=300 * _MB)
        return found

    def pod(self, name: str) -> Pod:
        """A pod that wants some of what it may want."""
        choose = self.random
        found = pod_message(name)
        found.metadata.namespace = choose.choice(("default", "default", "other", "third"))
        for key in ("app", "tier"):
            if choose.random() < 0.7:
                found.metadata.labels[key] = choose.choice("ab")
        if self._has("resources"):
            self._request(found)
        if self._has("images") and choose.random() < 0.5:
            found.spec.containers.add(name="d", image="registry/app:v1")
        if self._has("ports") and choose.random() < 0.4:
            address = choose.choice(("", "10.0.0.1", "10.0.0.2"))
            found.spec.containers[0].ports.add(containerPort=80, hostPort=choose.choice((80, 81)), hostIP=address)
        if self._has("disks") and choose.random() < 0.5:
            source = found.spec.volumes.add(name="disk").volumeSource
            if choose.random() < 0.3:
                source.awsElasticBlockStore.volumeID = choose.choice("de")
            else:
                source.gcePersistentDisk.pdName = choose.choice("de")
                source.gcePersistentDisk.readOnly = choose.random() < 0.5
        if self._has("taints"):
            self._tolerate(found)
        if self._has("node affinity"):
            self._choose_nodes(found)
        if self._has("spread"):
            for _ in range(choose.choice((0, 1, 1, 2))):
                self._spread(found)
        if self._has("inter-pod"):
            self._relate(found)
        return found

    def _has(self, part: str) -> bool:
        return part in self.parts

    def _request(self, pod: Pod) -> None:
        for resource, amounts in {
            "cpu": ("", "100m", "1"),
            "memory": ("", "200Mi", "1G"),
            "gpu": ("", "", "1"),
        }.items():
            amount = self.random.choice(amounts)
            if amount:
                pod.spec.containers[0].resources.requests[resource].string = amount

    def _tolerate(self, pod: Pod) -> None:
        choose = self.random
        for _ in range(choose.randint(0, 2)):
            operator = choose.choice(("Exists", "Equal"))
            effect = choose.choice(("", "NoSchedule", "PreferNoSchedule"))
            key = choose.choice(("k", "l", "")) if operator == "Exists" else choose.choice("kl")
            value = choose.choice(("", "v")) if operator == "Equal" else ""
            pod.spec.tolerations.add(key=key, operator=operator, value=value, effect=effect)

    def _choose_nodes(self, pod: Pod) -> None:
        choose, affinity = self.random, pod.spec.affinity.nodeAffinity
        if choose.random() < 0.2:
            pod.spec.nodeSelector["disk"] = choose.choice(("ssd", "hdd"))
        if choose.random() < 0.3:
            terms = affinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
            for _ in range(choose.randint(1, 2)):
                term = terms.add()
                if choose.random() < 0.6:
                    self._requirement(term.matchExpressions)
                if choose.random() < 0.5:
                    names = choose.sample([f"n{i}" for i in range(8)], choose.randint(1, 3))
                    term.matchFields.add(
                        key="metadata.name", operator=choose.choice(("In", "In", "NotIn")), values=names
                    )
        for _ in range(choose.randint(0, 2)):
            preferred = affinity.preferredDuringSchedulingIgnoredDuringExecution.add(weight=choose.randint(1, 100))
            self._requirement(preferred.preference.matchExpressions)

    def _requirement(self, target: RepeatedCompositeFieldContainer[NodeSelectorRequirement]) -> None:
        choose = self.random
        operator = choose.choice(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"))
        values = {"In": ["ssd", "3"], "NotIn": ["hdd"], "Gt": ["2"], "Lt": ["4"]}.get(operator, [])
        target.add(key="disk", operator=operator, values=values)

    def _selector(self, target: LabelSelector) -> None:
        choose = self.random
        match choose.randint(0, 4):
            case 0:
                target.SetInParent()
            case 1 | 2:
                target.matchLabels["app"] = choose.choice("ab")
            case 3:
                target.matchExpressions.add(key="tier", operator=choose.choice(("Exists", "DoesNotExist")))
            case _:
                target.matchExpressions.add(key="app", operator=choose.choice(("In", "NotIn")), values=["a"])

    def _spread(self, pod: Pod) -> None:
        choose = self.random
        key, how = choose.choice((HOST, ZONE, "disk")), choose.choice(("DoNotSchedule", "ScheduleAnyway"))
        if any((c.topologyKey, c.whenUnsatisfiable) == (key, how) for c in pod.spec.topologySpreadConstraints):
            return
        found: TopologySpreadConstraint = pod.spec.topologySpreadConstraints.add(
            topologyKey=key, maxSkew=choose.randint(1, 3), whenUnsatisfiable=how
        )
        if choose.random() < 0.9:
            self._selector(found.labelSelector)
            if choose.random() < 0.3:
                found.matchLabelKeys.append("tier")
        if how == "DoNotSchedule" and choose.random() < 0.4:
            found.minDomains = choose.randint(1, 4)
        found.nodeAffinityPolicy = choose.choice(("", "Honor", "Ignore"))
        found.nodeTaintsPolicy = choose.choice(("", "Honor", "Ignore"))

    def _relate(self, pod: Pod) -> None:
        choose = self.random
        for side in (pod.spec.affinity.podAffinity, pod.spec.affinity.podAntiAffinity):
            for _ in range(choose.choice((0, 0, 1, 2)) if choose.random() < 0.6 else 0):
                if choose.random() < 0.5:
                    self._term(side.requiredDuringSchedulingIgnoredDuringExecution.add())
                else:
                    preferred = side.preferredDuringSchedulingIgnoredDuringExecution.add(weight=choose.randint(1, 100))
                    self._term(preferred.podAffinityTerm)

    def _term(self, term: PodAffinityTerm) -> None:
        choose = self.random
        term.topologyKey = choose.choice((HOST, ZONE, "disk"))
        if choose.random() < 0.95:
            self._selector(term.labelSelector)
        match choose.randint(0, 5):
            case 0:
                term.namespaces.append("other")
            case 1:
                term.namespaceSelector.matchLabels["team"] = choose.choice("ab")
            case 2:
                term.namespaceSelector.SetInParent()
            case _:
                pass
        if choose.random() < 0.2:
            term.matchLabelKeys.append("tier")
        elif choose.random() < 0.2:
            term.mismatchLabelKeys.append("tier")
