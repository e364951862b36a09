"""A scheduler's configuration as values; without a file everything is as kube-scheduler has it by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tiphys.api.core.v1.scheduling_pb2 import NodeSelector, PreferredSchedulingTerm
from tiphys_scheduler.plugins.allocation_scores import LeastAllocated, Strategy
from tiphys_scheduler.plugins.measured_use import MeasuredUseArgs
from tiphys_scheduler.plugins.pod_topology_spread import SYSTEM_DEFAULTS, DefaultConstraint
from tiphys_scheduler.pod_info import CPU, MEMORY
from tiphys_scheduler.scheduling_queue import BackoffTimes

DEFAULT_NAME = "default-scheduler"


@dataclass(frozen=True, slots=True)
class Listed:
    """A plugin that is enabled at a point; weight 0 keeps the default one."""

    name: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class PluginSet:
    """What a profile changes at one point; "*" among the disabled means all."""

    enabled: tuple[Listed, ...] = ()
    disabled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PluginArgs:
    """Arguments of the plugins of one profile."""

    strategy: Strategy = field(default_factory=LeastAllocated)
    scored: tuple[tuple[str, int], ...] = ((CPU, 1), (MEMORY, 1))
    ignored_resources: tuple[str, ...] = ()
    ignored_groups: tuple[str, ...] = ()
    balanced: tuple[str, ...] = (CPU, MEMORY)
    spread: tuple[DefaultConstraint, ...] = SYSTEM_DEFAULTS
    has_system_spread: bool = True
    hard_pod_affinity_weight: int = 1
    ignore_preferences_of_placed: bool = False
    added_affinity: NodeSelector | None = None
    added_preferences: tuple[PreferredSchedulingTerm, ...] = ()
    # Of the classic policy: labels that a node must have (True) or must not have (False).
    label_presence: tuple[tuple[tuple[str, ...], bool], ...] = ()
    # Labels of which all nodes of a service's pods have the same values.
    service_labels: tuple[str, ...] = ()
    measured_use: MeasuredUseArgs | None = None


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """One profile: the pods that name it are placed by these plugins."""

    name: str = DEFAULT_NAME
    # By extension point as the file names it, multiPoint among them.
    plugins: Mapping[str, PluginSet] = field(default_factory=dict)
    args: PluginArgs = field(default_factory=PluginArgs)


@dataclass(frozen=True, slots=True)
class ExtenderConfig:
    """An HTTP service that has a say. Verbs are appended to the URL; an empty one is not called."""

    url: str
    filter_verb: str = ""
    prioritize_verb: str = ""
    bind_verb: str = ""
    preempt_verb: str = ""
    weight: int = 1
    timeout_s: float = 5.0
    is_ignorable: bool = False
    node_cache_capable: bool = False
    # Resource names that make a pod its business, with whether the scheduler leaves them to it; none means all pods.
    managed: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything a file may say that makes a difference here."""

    profiles: tuple[ProfileConfig, ...] = (ProfileConfig(),)
    backoff: BackoffTimes = field(default_factory=BackoffTimes)
    extenders: tuple[ExtenderConfig, ...] = ()
    remote_plugins: tuple[RemotePluginConfig, ...] = ()

    @property
    def uses_services(self) -> bool:
        """Whether any profile looks at services."""
        return any(profile.args.service_labels for profile in self.profiles)

    @property
    def measured_use(self) -> MeasuredUseArgs | None:
        """How to measure what nodes use, None where no profile places pods by it."""
        return next((p.args.measured_use for p in self.profiles if p.args.measured_use is not None), None)


@dataclass(frozen=True, slots=True)
class RemotePluginConfig:
    """A plugin in another process, spoken to by gRPC at `target`; weight is that of its scores."""

    name: str
    target: str
    weight: int = 1
    timeout_s: float = 5.0
    is_ignorable: bool = False
