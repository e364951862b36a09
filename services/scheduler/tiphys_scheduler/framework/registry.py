"""The plugins in their order and with their weights: the one table."""

from __future__ import annotations

from collections.abc import Mapping

from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.framework.runtime import Profile
from tiphys_scheduler.plugins.balanced_allocation import BalancedAllocation
from tiphys_scheduler.plugins.node_affinity import NodeAffinity
from tiphys_scheduler.plugins.node_name import NodeName
from tiphys_scheduler.plugins.node_ports import NodePorts
from tiphys_scheduler.plugins.node_resources_fit import NodeResourcesFit
from tiphys_scheduler.plugins.node_unschedulable import NodeUnschedulable
from tiphys_scheduler.plugins.taint_toleration import TaintToleration

_TAINTS, _AFFINITY, _FIT = TaintToleration(), NodeAffinity(), NodeResourcesFit()

# Order and weights are Kubernetes' defaults.
DEFAULT_PROFILE = Profile(
    filters=(NodeUnschedulable(), NodeName(), _TAINTS, _AFFINITY, NodePorts(), _FIT),
    scores=((_TAINTS, 3), (_AFFINITY, 2), (_FIT, 1), (BalancedAllocation(), 1)),
)

# Plugin name -> events that may lift its refusal.
EVENTS: Mapping[str, frozenset[Event]] = {plugin.name: plugin.events for plugin in DEFAULT_PROFILE.filters}
