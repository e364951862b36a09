"""The plugins in their order and with their weights: the one table."""

from __future__ import annotations

from collections.abc import Mapping

from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.plugins.balanced_allocation import BalancedAllocation
from tiphys_scheduler.plugins.image_locality import ImageLocality
from tiphys_scheduler.plugins.inter_pod_affinity import InterPodAffinity
from tiphys_scheduler.plugins.node_affinity import NodeAffinity
from tiphys_scheduler.plugins.node_name import NodeName
from tiphys_scheduler.plugins.node_ports import NodePorts
from tiphys_scheduler.plugins.node_resources_fit import NodeResourcesFit
from tiphys_scheduler.plugins.node_unschedulable import NodeUnschedulable
from tiphys_scheduler.plugins.pod_topology_spread import PodTopologySpread
from tiphys_scheduler.plugins.taint_toleration import TaintToleration
from tiphys_scheduler.plugins.volume_binding import NodeVolumeLimits, VolumeBinding, VolumeRestrictions
from tiphys_scheduler.volumes import Volumes


def profile(binding: VolumeBinding, volumes: Volumes) -> Profile:
    """Order and weights are Kubernetes' defaults. volumes is what the plugins for volumes look at."""
    taints, affinity, fit = TaintToleration(), NodeAffinity(), NodeResourcesFit()
    spread, between = PodTopologySpread(), InterPodAffinity()
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
            spread,
            between,
        ),
        scores=(
            (taints, 3),
            (affinity, 2),
            (spread, 2),
            (between, 2),
            (fit, 1),
            (BalancedAllocation(), 1),
            (ImageLocality(), 1),
        ),
        pre_filters=(binding,),
    )


_EMPTY = Volumes()
# The profile of a cluster without storage.
DEFAULT_PROFILE = profile(VolumeBinding(_EMPTY), _EMPTY)

# Plugin name -> events that may lift its refusal.
EVENTS: Mapping[str, frozenset[Event]] = {plugin.name: plugin.events for plugin in DEFAULT_PROFILE.filters}
