"""The plugins in their order and with their weights: the one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tiphys_apimachinery.labels import Selector
from tiphys_scheduler.configuration.model import PluginArgs
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.plugins.balanced_allocation import BalancedAllocation
from tiphys_scheduler.plugins.dynamic_resources import DynamicResources
from tiphys_scheduler.plugins.image_locality import ImageLocality
from tiphys_scheduler.plugins.inter_pod_affinity import InterPodAffinity
from tiphys_scheduler.plugins.node_affinity import NodeAffinity
from tiphys_scheduler.plugins.node_name import NodeName
from tiphys_scheduler.plugins.node_ports import NodePorts
from tiphys_scheduler.plugins.node_resources_fit import NodeResourcesFit
from tiphys_scheduler.plugins.node_unschedulable import NodeUnschedulable
from tiphys_scheduler.plugins.pod_topology_spread import PodTopologySpread, no_selector
from tiphys_scheduler.plugins.scheduling_gates import SchedulingGates
from tiphys_scheduler.plugins.taint_toleration import TaintToleration
from tiphys_scheduler.plugins.volume_binding import NodeVolumeLimits, VolumeBinding
from tiphys_scheduler.plugins.volume_restrictions import VolumeRestrictions
from tiphys_scheduler.plugins.volume_zone import VolumeZone
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.volumes import Volumes


def profile(
    binding: VolumeBinding,
    volumes: Volumes,
    args: PluginArgs | None = None,
    *,
    selector_of: Callable[[PodInfo], Selector] = no_selector,
    claims: tuple[DynamicResources, ...] = (),
) -> Profile:
    """Order and weights are Kubernetes' defaults.

    volumes is what the plugins for volumes look at; selector_of says which pods are of a pod's kind, by its services
    and its owner. Without claims' plugin no pod can claim devices.
    """
    args = args or PluginArgs()
    taints, affinity = TaintToleration(), NodeAffinity(args.added_preferences)
    fit = NodeResourcesFit(
        args.strategy, args.scored, ignored=args.ignored_resources, ignored_groups=args.ignored_groups
    )
    spread = PodTopologySpread(args.spread, system_defaults=args.has_system_spread, selector_of=selector_of)
    between = InterPodAffinity(
        args.hard_pod_affinity_weight, ignore_preferences_of_placed=args.ignore_preferences_of_placed
    )
    return Profile(
        filters=(
            NodeUnschedulable(),
            NodeName(),
            taints,
            affinity,
            NodePorts(),
            fit,
            VolumeRestrictions(volumes),
            NodeVolumeLimits(volumes),
            binding,
            VolumeZone(volumes),
            spread,
            between,
            *claims,
        ),
        scores=(
            (taints, 3),
            (affinity, 2),
            (spread, 2),
            (between, 2),
            (fit, 1),
            (BalancedAllocation(args.balanced), 1),
            (ImageLocality(), 1),
        ),
        pre_filters=(binding, *claims),
        pre_enqueues=(SchedulingGates(), *claims),
        reserves=claims,
        pre_binds=claims,
    )


_EMPTY = Volumes()
# The profile of a cluster without storage.
DEFAULT_PROFILE = profile(VolumeBinding(_EMPTY), _EMPTY)

# Plugin name -> events that may lift its refusal.
EVENTS: Mapping[str, frozenset[Event]] = {plugin.name: plugin.events for plugin in DEFAULT_PROFILE.filters}
