"""KubeSchedulerConfiguration, kubescheduler.config.k8s.io/v1.

Everything of the version is read; what makes no difference here (parallelism, percentageOfNodesToScore: all nodes are
scored at once) is accepted and checked only for its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tiphys.api.core.v1.scheduling_pb2 import NodeAffinity
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.codec.json_strict import FieldSink
from tiphys_apimachinery.errors import APIError
from tiphys_component.options import parse_duration
from tiphys_scheduler.configuration.model import (
    DEFAULT_NAME,
    Configuration,
    ExtenderConfig,
    Listed,
    PluginArgs,
    PluginSet,
    ProfileConfig,
    RemotePluginConfig,
)
from tiphys_scheduler.configuration.reader import Reader
from tiphys_scheduler.plugins.allocation_scores import (
    LeastAllocated,
    MostAllocated,
    RequestedToCapacityRatio,
    Strategy,
)
from tiphys_scheduler.plugins.measured_use import MeasuredUseArgs
from tiphys_scheduler.plugins.pod_topology_spread import SYSTEM_DEFAULTS, DefaultConstraint
from tiphys_scheduler.pod_info import CPU, MEMORY
from tiphys_scheduler.scheduling_queue import BackoffTimes

API_VERSION = "kubescheduler.config.k8s.io/v1"
KIND = "KubeSchedulerConfiguration"
POINTS = (
    "preEnqueue",
    "queueSort",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
    "multiPoint",
)


def configuration(reader: Reader) -> Configuration:
    """Reads a whole file."""
    reader.text("apiVersion", one_of=(API_VERSION,))
    reader.text("kind", one_of=(KIND,))
    reader.number("parallelism", 16, 1)
    reader.number("percentageOfNodesToScore", 0, 0, 100)
    # Told by flags here, or of no consequence.
    reader.ignore("leaderElection", "clientConnection", "healthzBindAddress", "metricsBindAddress")
    reader.ignore("enableProfiling", "enableContentionProfiling", "delayCacheUntilActive")
    initial = reader.number("podInitialBackoffSeconds", 1, 1)
    longest = reader.number("podMaxBackoffSeconds", 10, 1)
    if longest < initial:
        reader.faults.add(
            "podMaxBackoffSeconds", longest, f"must not be less than podInitialBackoffSeconds ({initial})"
        )
    profiles = tuple(_profile(item) for item in reader.each("profiles")) or (ProfileConfig(),)
    names = [profile.name for profile in profiles]
    for index, name in enumerate(names):
        if name in names[:index]:
            reader.faults.add(f"profiles[{index}].schedulerName", name, "is the name of another profile")
    if len({_queue_sort(profile) for profile in profiles}) > 1:
        reader.faults.add("profiles", names, "all profiles must sort the queue alike")
    return Configuration(
        profiles,
        BackoffTimes(initial, longest),
        tuple(_extender(item) for item in reader.each("extenders")),
        tuple(_remote(item) for item in reader.each("remotePlugins")),
    )


def _queue_sort(profile: ProfileConfig) -> PluginSet:
    return profile.plugins.get("queueSort", PluginSet())


def _profile(reader: Reader) -> ProfileConfig:
    name = reader.text("schedulerName", DEFAULT_NAME)
    reader.number("percentageOfNodesToScore", 0, 0, 100)
    plugins = reader.member("plugins")
    sets = {point: _plugin_set(plugins.member(point)) for point in POINTS}
    plugins.close()
    given: dict[str, Any] = {}
    for item in reader.each("pluginConfig"):
        plugin = item.text("name")
        args = item.member("args")
        read = _ARGS.get(plugin)
        if read is None:
            reader.faults.add(item.at("name"), plugin, "is no plugin with arguments")
            item.ignore("args")
            continue
        args.text("apiVersion", one_of=(API_VERSION,))
        args.text("kind", one_of=(f"{plugin}Args",))
        given.update(read(args))
        args.close()
    return ProfileConfig(
        name, {point: found for point, found in sets.items() if found != PluginSet()}, PluginArgs(**given)
    )


def _plugin_set(reader: Reader) -> PluginSet:
    enabled = tuple(Listed(item.text("name"), item.number("weight", 0)) for item in reader.each("enabled"))
    disabled = []
    for item in reader.each("disabled"):
        disabled.append(item.text("name"))
        item.ignore("weight")
    reader.close()
    return PluginSet(enabled, frozenset(disabled))


def _resources(reader: Reader, name: str) -> tuple[tuple[str, int], ...]:
    return tuple((item.text("name"), item.number("weight", 1, 1, 100)) for item in reader.each(name))


def _fit(reader: Reader) -> Mapping[str, Any]:
    strategy = reader.member("scoringStrategy")
    kind = strategy.text(
        "type", "LeastAllocated", one_of=("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio")
    )
    resources = _resources(strategy, "resources") or ((CPU, 1), (MEMORY, 1))
    ratio = strategy.member("requestedToCapacityRatio")
    shape = tuple(
        (point.number("utilization", 0, 0, 100), point.number("score", 0, 0, 10)) for point in ratio.each("shape")
    )
    ratio.close()
    strategy.close()
    if any(a[0] >= b[0] for a, b in pairwise(shape)):
        reader.faults.add(ratio.at("shape"), [point[0] for point in shape], "utilization must rise from point to point")
    made: dict[str, Strategy] = {
        "LeastAllocated": LeastAllocated(),
        "MostAllocated": MostAllocated(),
        "RequestedToCapacityRatio": RequestedToCapacityRatio(shape) if shape else RequestedToCapacityRatio(),
    }
    return {
        "strategy": made[kind],
        "scored": resources,
        "ignored_resources": reader.texts("ignoredResources"),
        "ignored_groups": reader.texts("ignoredResourceGroups"),
    }


def _balanced(reader: Reader) -> Mapping[str, Any]:
    return {"balanced": tuple(name for name, _ in _resources(reader, "resources")) or (CPU, MEMORY)}


def _spread(reader: Reader) -> Mapping[str, Any]:
    found = tuple(
        DefaultConstraint(
            item.text("topologyKey"),
            item.number("maxSkew", 1, 1),
            item.text("whenUnsatisfiable", one_of=("DoNotSchedule", "ScheduleAnyway")) == "DoNotSchedule",
        )
        for item in reader.each("defaultConstraints")
    )
    kind = reader.text("defaultingType", "System", one_of=("System", "List"))
    if kind == "System" and found:
        reader.faults.add(reader.at("defaultingType"), kind, "must be List where defaultConstraints are given")
    return {"spread": found if kind == "List" else SYSTEM_DEFAULTS, "has_system_spread": kind == "System"}


def _between(reader: Reader) -> Mapping[str, Any]:
    return {
        "hard_pod_affinity_weight": reader.number("hardPodAffinityWeight", 1, 0, 100),
        "ignore_preferences_of_placed": reader.flag("ignorePreferredTermsOfExistingPods"),
    }


def _affinity(reader: Reader) -> Mapping[str, Any]:
    value = reader.raw("addedAffinity")
    if value is None:
        return {}
    sink = FieldSink()
    try:
        made = json_codec.from_json(NodeAffinity, value, sink)
    except APIError as err:
        reader.faults.add(reader.at("addedAffinity"), value, str(err))
        return {}
    for message in sink.messages():
        reader.faults.add(reader.at("addedAffinity"), value, message)
    found: dict[str, Any] = {"added_preferences": tuple(made.preferredDuringSchedulingIgnoredDuringExecution)}
    if made.HasField("requiredDuringSchedulingIgnoredDuringExecution"):
        found["added_affinity"] = made.requiredDuringSchedulingIgnoredDuringExecution
    return found


def _preemption(reader: Reader) -> Mapping[str, Any]:
    # Here all nodes are candidates.
    reader.number("minCandidateNodesPercentage", 10, 0, 100)
    reader.number("minCandidateNodesAbsolute", 100, 0)
    return {}


def _volumes(reader: Reader) -> Mapping[str, Any]:
    reader.number("bindTimeoutSeconds", 600, 0)
    reader.ignore("shape")
    return {}


def _measured_use(reader: Reader) -> Mapping[str, Any]:
    classes = reader.texts("priorityClassNames")
    if not classes:
        reader.faults.add(reader.at("priorityClassNames"), [], "must name the classes whose pods may use spare room")
    usual = MeasuredUseArgs()
    made = MeasuredUseArgs(
        classes,
        reader.number("marginPercent", usual.margin_percent, 0, 100),
        reader.number("periodSeconds", int(usual.period_s), 1),
        reader.number("oldestSeconds", int(usual.oldest_s), 1),
    )
    return {"measured_use": made}


_ARGS = {
    "NodeResourcesFit": _fit,
    "NodeResourcesBalancedAllocation": _balanced,
    "PodTopologySpread": _spread,
    "InterPodAffinity": _between,
    "NodeAffinity": _affinity,
    "DefaultPreemption": _preemption,
    "VolumeBinding": _volumes,
    "MeasuredUse": _measured_use,
}


def _duration(reader: Reader, name: str, default_s: float) -> float:
    text = reader.text(name)
    try:
        return parse_duration(text) if text else default_s
    except ValueError as err:
        reader.faults.add(reader.at(name), text, str(err))
        return default_s


def _extender(reader: Reader) -> ExtenderConfig:
    url = reader.text("urlPrefix")
    if not url.startswith(("http://", "https://")):
        reader.faults.add(reader.at("urlPrefix"), url, "must be a URL")
    reader.ignore("enableHTTPS", "tlsConfig")
    managed = {item.text("name"): item.flag("ignoredByScheduler") for item in reader.each("managedResources")}
    return ExtenderConfig(
        url.rstrip("/"),
        reader.text("filterVerb"),
        reader.text("prioritizeVerb"),
        reader.text("bindVerb"),
        reader.text("preemptVerb"),
        reader.number("weight", 1, 1),
        _duration(reader, "httpTimeout", 5.0),
        reader.flag("ignorable"),
        reader.flag("nodeCacheCapable"),
        managed,
    )


def _remote(reader: Reader) -> RemotePluginConfig:
    return RemotePluginConfig(
        reader.text("name"),
        reader.text("target"),
        reader.number("weight", 1),
        _duration(reader, "timeout", 5.0),
        reader.flag("ignorable"),
    )
