"""What a pod says of other pods: whom it spreads from, whom it wants near and whom far.

Read once from a pod's spec into values that can be compared and hashed, since pods with equal needs share a class and
equal selections share one count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.scheduling_pb2 import PodAffinityTerm as PodAffinityTermMessage
from tiphys.api.core.v1.scheduling_pb2 import TopologySpreadConstraint
from tiphys.api.meta.v1.meta_pb2 import LabelSelector
from tiphys_apimachinery.labels import Operator, Requirement, Selector, SelectorError, from_label_selector

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Identity:
    """What selectors see of a pod. Pods that are going count for affinity and no longer for spreading."""

    namespace: str
    labels: Labels
    is_deleting: bool = False

    @cached_property
    def label_map(self) -> Mapping[str, str]:
        """The labels by key."""
        return dict(self.labels)


@dataclass(frozen=True, slots=True)
class Selection:
    """Pods by namespace and label.

    A pod is in it whose namespace is named or selected, and whose labels are selected. live_only leaves pods out that
    are being deleted.
    """

    namespaces: frozenset[str]
    selector: Selector
    namespace_selector: Selector | None = None
    live_only: bool = False

    def matches(self, pod: Identity, namespace_labels: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether a pod is in it."""
        if self.live_only and pod.is_deleting:
            return False
        if pod.namespace not in self.namespaces and not (
            self.namespace_selector is not None
            and self.namespace_selector.matches(namespace_labels.get(pod.namespace, {}))
        ):
            return False
        return self.selector.matches(pod.label_map)


@dataclass(frozen=True, slots=True)
class AffinityTerm:
    """Pods of the selection are wanted (or not wanted) where the node's label has the same value.

    weight is that of a preference, negative for anti-affinity; 0 where the term is required.
    """

    topology_key: str
    selection: Selection
    weight: int = 0


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """One topology spread constraint; self_match tells whether the pod counts itself."""

    topology_key: str
    max_skew: int
    is_hard: bool
    selection: Selection
    counts_pods: bool
    self_match: bool
    min_domains: int = 1
    honors_affinity: bool = True
    honors_taints: bool = False


@dataclass(frozen=True, slots=True)
class HeldTerm:
    """A term that a placed pod has: it speaks of pods that come after it, too."""

    kind: Literal["affinity", "anti-affinity", "preferred"]
    term: AffinityTerm


@dataclass(frozen=True)
class PodTerms:
    """Everything of the kind in one pod; empty for most pods."""

    spread: tuple[SpreadConstraint, ...] = ()
    affinity: tuple[AffinityTerm, ...] = ()
    anti_affinity: tuple[AffinityTerm, ...] = ()
    preferred: tuple[AffinityTerm, ...] = ()

    def has_affinity(self) -> bool:
        """Whether any pod may be wanted near or far."""
        return bool(self.affinity or self.anti_affinity or self.preferred)

    @cached_property
    def held(self) -> tuple[HeldTerm, ...]:
        """The terms that bind others once the pod is placed."""
        return (
            *(HeldTerm("affinity", term) for term in self.affinity),
            *(HeldTerm("anti-affinity", term) for term in self.anti_affinity),
            *(HeldTerm("preferred", term) for term in self.preferred),
        )


NO_TERMS = PodTerms()
NOBODY = Identity("", ())


def identity(pod: Pod) -> Identity:
    """What selectors see of a pod."""
    metadata = pod.metadata
    return Identity(metadata.namespace, tuple(sorted(metadata.labels.items())), metadata.HasField("deletionTimestamp"))


def pod_terms(pod: Pod) -> PodTerms:
    """Reads a pod; terms that can't be understood select nothing."""
    spec = pod.spec
    has_near = spec.affinity.HasField("podAffinity")
    has_far = spec.affinity.HasField("podAntiAffinity")
    if not (spec.topologySpreadConstraints or has_near or has_far):
        return NO_TERMS
    near, far = spec.affinity.podAffinity, spec.affinity.podAntiAffinity
    who = identity(pod)
    preferred = [
        _affinity_term(item.podAffinityTerm, who, weight=sign * item.weight)
        for sign, side in ((1, near), (-1, far))
        for item in side.preferredDuringSchedulingIgnoredDuringExecution
    ]
    return PodTerms(
        spread=tuple(_spread_constraint(item, who) for item in spec.topologySpreadConstraints),
        affinity=tuple(_affinity_term(t, who) for t in near.requiredDuringSchedulingIgnoredDuringExecution),
        anti_affinity=tuple(_affinity_term(t, who) for t in far.requiredDuringSchedulingIgnoredDuringExecution),
        preferred=tuple(preferred),
    )


def _spread_constraint(item: TopologySpreadConstraint, who: Identity) -> SpreadConstraint:
    selector = _selector(item.labelSelector if item.HasField("labelSelector") else None)
    same = [Requirement(k, Operator.IN, (who.label_map[k],)) for k in item.matchLabelKeys if k in who.label_map]
    if same:
        # Source: podtopologyspread/common.go; a selector that selects nothing gives way to the keys.
        selector = _with(selector, same)
    return SpreadConstraint(
        topology_key=item.topologyKey,
        max_skew=item.maxSkew,
        is_hard=item.whenUnsatisfiable == "DoNotSchedule",
        selection=Selection(frozenset({who.namespace}), selector, live_only=True),
        # Kubernetes counts no pods for a selector that selects all of them.
        counts_pods=bool(selector),
        self_match=selector.matches(who.label_map),
        min_domains=item.minDomains if item.HasField("minDomains") else 1,
        honors_affinity=item.nodeAffinityPolicy != "Ignore",
        honors_taints=item.nodeTaintsPolicy == "Honor",
    )


def _affinity_term(item: PodAffinityTermMessage, who: Identity, *, weight: int = 0) -> AffinityTerm:
    selector = _selector(item.labelSelector if item.HasField("labelSelector") else None)
    if not selector.selects_nothing:
        keys = ((item.matchLabelKeys, Operator.IN), (item.mismatchLabelKeys, Operator.NOT_IN))
        selector = _with(
            selector,
            [Requirement(k, how, (who.label_map[k],)) for names, how in keys for k in names if k in who.label_map],
        )
    has_selector = item.HasField("namespaceSelector")
    own = not item.namespaces and not has_selector
    return AffinityTerm(
        topology_key=item.topologyKey,
        selection=Selection(
            frozenset({who.namespace}) if own else frozenset(item.namespaces),
            selector,
            _selector(item.namespaceSelector) if has_selector else None,
        ),
        weight=weight,
    )


def _with(selector: Selector, more: Iterable[Requirement]) -> Selector:
    """The API server may have merged the keys already: a requirement counts once."""
    found = dict.fromkeys((*selector.requirements, *more))
    return Selector(tuple(sorted(found, key=lambda r: (r.key, r.operator.value, r.values))))


def _selector(message: LabelSelector | None) -> Selector:
    try:
        return from_label_selector(message)
    except SelectorError:
        return Selector.nothing()
