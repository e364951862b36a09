"""Queueing hints: whether a change is worth another try of a pod that some plugins refused.

Most plugins judge each node by itself. For them the answer is exact: after a change on one node, the pod is helped if
that node passes them all now. Other plugins are asked, or believed by their list of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np

from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.interface import Change, FilterPlugin, HintPlugin, Plugin
from tiphys_scheduler.pod_info import PodInfo

# Plugins whose verdict on a node depends on nothing but this node.
NODE_LOCAL = frozenset(
    {"NodeUnschedulable", "NodeName", "TaintToleration", "NodeAffinity", "NodePorts", "NodeResourcesFit"}
)


def may_help(
    plugins: Mapping[str, Plugin], pod: PodInfo, refused_by: Iterable[str], *, change: Change, nodes: Columns
) -> bool:
    """Whether the pod may fit after the change, of which the columns know already."""
    local: list[FilterPlugin] = []
    hears = False
    for name in refused_by:
        plugin = plugins.get(name)
        if plugin is None:
            return True
        listens = change.event in plugin.events
        if name in NODE_LOCAL and change.node:
            local.append(cast(FilterPlugin, plugin))
            hears = hears or listens
        elif listens and (not isinstance(plugin, HintPlugin) or plugin.is_helped(pod, change, nodes)):
            return True
    row = nodes.row_of.get(change.node)
    return hears and row is not None and _passes(local, pod, nodes, row)


def _passes(plugins: Iterable[FilterPlugin], pod: PodInfo, nodes: Columns, row: int) -> bool:
    rows = np.array([row], np.intp)
    return all(not p.is_needed(pod, nodes) or bool(p.filter(pod, nodes, rows)[0]) for p in plugins)
