"""The scheduler of the oldest API: predicates, priorities and providers by their names of then.

A Policy file, or a provider registered by name, becomes a profile of today's plugins.
Source: kubernetes 1.2 plugin/pkg/scheduler/api and factory; pkg/scheduler/framework/plugins/legacy_registry.go of 1.22
for which plugin took over from which name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys_scheduler.configuration.kube import _extender
from tiphys_scheduler.configuration.model import (
    DEFAULT_NAME,
    Configuration,
    Listed,
    PluginArgs,
    PluginSet,
    ProfileConfig,
)
from tiphys_scheduler.configuration.reader import ConfigurationError, Reader

PREDICATES: Mapping[str, tuple[str, ...]] = {
    "PodFitsPorts": ("NodePorts",),
    "PodFitsHostPorts": ("NodePorts",),
    "PodFitsResources": ("NodeResourcesFit",),
    "PodFitResources": ("NodeResourcesFit",),
    "NoDiskConflict": ("VolumeRestrictions",),
    "MatchNodeSelector": ("NodeAffinity",),
    "PodSelectorMatches": ("NodeAffinity",),
    "HostName": ("NodeName",),
    "PodFitsHost": ("NodeName",),
    "GeneralPredicates": ("NodeResourcesFit", "NodeName", "NodePorts", "NodeAffinity"),
    "PodToleratesNodeTaints": ("TaintToleration",),
    "CheckNodeUnschedulable": ("NodeUnschedulable",),
    "MaxCSIVolumeCountPred": ("NodeVolumeLimits",),
    "CheckVolumeBinding": ("VolumeBinding",),
    "MatchInterPodAffinity": ("InterPodAffinity",),
    "EvenPodsSpread": ("PodTopologySpread",),
    "CheckNodeLabelPresence": ("NodeLabel",),
    "CheckServiceAffinity": ("ServiceAffinity",),
}
PRIORITIES: Mapping[str, str] = {
    "LeastRequestedPriority": "NodeResourcesFit",
    "MostRequestedPriority": "NodeResourcesFit",
    "BalancedResourceAllocation": "NodeResourcesBalancedAllocation",
    "SelectorSpreadPriority": "PodTopologySpread",
    "ServiceSpreadingPriority": "PodTopologySpread",
    "EvenPodsSpreadPriority": "PodTopologySpread",
    "NodeAffinityPriority": "NodeAffinity",
    "TaintTolerationPriority": "TaintToleration",
    "InterPodAffinityPriority": "InterPodAffinity",
    "ImageLocalityPriority": "ImageLocality",
    # Every node scores the same.
    "EqualPriority": "",
}
DEFAULT_PREDICATES = ("PodFitsPorts", "PodFitsResources", "NoDiskConflict", "MatchNodeSelector", "HostName")
DEFAULT_PRIORITIES = ("LeastRequestedPriority", "BalancedResourceAllocation", "SelectorSpreadPriority")


class AlgorithmProviders:
    """Predicates and priorities under one name, as RegisterAlgorithmProvider of then."""

    def __init__(self) -> None:
        self._profiles: dict[str, ProfileConfig] = {}
        self.register("DefaultProvider", DEFAULT_PREDICATES, DEFAULT_PRIORITIES)
        # The set of Kubernetes 1.2.
        self.register("v1.2", DEFAULT_PREDICATES, DEFAULT_PRIORITIES)

    def register(self, name: str, predicate_keys: Iterable[str], priority_keys: Iterable[str]) -> str:
        """Makes a provider known and returns its name. Raises ConfigurationError for a predicate nobody knows."""
        predicates, priorities = list(predicate_keys), list(priority_keys)
        for key in predicates:
            if key not in PREDICATES:
                raise ConfigurationError(f'Invalid configuration: Predicate type not found for "{key}"')
        for key in priorities:
            if key not in PRIORITIES:
                raise ConfigurationError(f'Invalid configuration: Priority type not found for "{key}"')
        self._profiles[name] = _profile(predicates, [(key, 1) for key in priorities], PluginArgs())
        return name

    def profile(self, name: str) -> ProfileConfig:
        """The profile of a provider. Raises ConfigurationError for one that nobody registered."""
        found = self._profiles.get(name)
        if found is None:
            raise ConfigurationError(f'--algorithm-provider: Invalid value: "{name}": has not been registered')
        return found


def policy(reader: Reader) -> Configuration:
    """Reads a Policy file; without predicates or priorities the defaults of then hold."""
    reader.text("apiVersion", one_of=("v1",))
    reader.text("kind", one_of=("Policy",))
    args: dict[str, Any] = {"label_presence": (), "service_labels": ()}
    predicates = [_predicate(item, args) for item in reader.each("predicates")]
    priorities = [_priority(item) for item in reader.each("priorities")]
    if reader.raw("predicates") is None:
        predicates = list(DEFAULT_PREDICATES)
    if reader.raw("priorities") is None:
        priorities = [(key, 1) for key in DEFAULT_PRIORITIES]
    reader.number("hardPodAffinitySymmetricWeight", 1, 0, 100)
    reader.ignore("alwaysCheckAllPredicates")
    extenders = tuple(_extender(item) for item in reader.each("extenders"))
    profile = _profile([p for p in predicates if p], [p for p in priorities if p[0]], PluginArgs(**args))
    return Configuration((profile,), extenders=extenders)


def _predicate(reader: Reader, args: dict[str, Any]) -> str:
    """Its name; one with an argument has a name of its author's choice, and is known by the argument."""
    name = reader.text("name")
    argument = reader.member("argument")
    presence, affinity = argument.raw("labelsPresence"), argument.raw("serviceAffinity")
    argument.close()
    if presence is not None:
        labels = argument.member("labelsPresence")
        args["label_presence"] += ((labels.texts("labels"), labels.flag("presence")),)
        labels.close()
        return "CheckNodeLabelPresence"
    if affinity is not None:
        labels = argument.member("serviceAffinity")
        args["service_labels"] += labels.texts("labels")
        labels.close()
        return "CheckServiceAffinity"
    if name not in PREDICATES or name in ("CheckNodeLabelPresence", "CheckServiceAffinity"):
        reader.faults.add(reader.at("name"), name, "is no predicate, or lacks its argument")
        return ""
    return name


def _priority(reader: Reader) -> tuple[str, int]:
    name, weight = reader.text("name"), reader.number("weight", 1, 1)
    reader.ignore("argument")
    if name not in PRIORITIES:
        reader.faults.add(reader.at("name"), name, "is no priority")
        return "", 0
    return name, weight


def _profile(predicates: list[str], priorities: list[tuple[str, int]], args: PluginArgs) -> ProfileConfig:
    filters = dict.fromkeys(plugin for key in predicates for plugin in PREDICATES[key])
    scores: dict[str, int] = {}
    for key, weight in priorities:
        if PRIORITIES[key]:
            scores[PRIORITIES[key]] = scores.get(PRIORITIES[key], 0) + weight
    everything = frozenset({"*"})
    needs_volumes = "VolumeBinding" in filters
    return ProfileConfig(
        DEFAULT_NAME,
        {
            "preFilter": PluginSet((Listed("VolumeBinding"),) if needs_volumes else (), everything),
            "filter": PluginSet(tuple(Listed(name) for name in filters), everything),
            "postFilter": PluginSet((), everything),
            "score": PluginSet(tuple(Listed(name, weight) for name, weight in scores.items()), everything),
        },
        args,
    )
