"""What the user may say of the pod network: its range, and a configuration list and plugins in place of ours."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

from tiphys_cluster.errors import ClusterError
from tiphys_cluster.settings import NETWORKS, Settings

# What each node gets of the range: the default of the controller manager's --node-cidr-mask-size.
NODE_PREFIX_LENGTH = 24
_ADVICE = "Choose another --pod-network-cidr."


def check_pod_cidr(text: str, *, nodes: int) -> str:
    """The range of all pods as it is usually written. Raises ClusterError where it can't be one."""
    try:
        network = IPv4Network(text)
    except ValueError as err:
        raise ClusterError(f"{text!r} is no IPv4 range for pods: {err}", _ADVICE) from err
    fit = 2 ** max(0, NODE_PREFIX_LENGTH - network.prefixlen) if network.prefixlen <= NODE_PREFIX_LENGTH else 0
    if fit < nodes:
        raise ClusterError(
            f"{network} has room for {fit} nodes with a /{NODE_PREFIX_LENGTH} each, not {nodes}", _ADVICE
        )
    for taken, whose in ((IPv4Network(Settings.service_cidr), "services"), (NETWORKS, "nodes")):
        if network.overlaps(taken):
            raise ClusterError(f"{network} overlaps {taken}, the range of {whose}", _ADVICE)
    return str(network)


def read_network_list(path: Path) -> str:
    """The text of a network configuration list. Raises ClusterError where the file is none."""
    try:
        text = path.read_text()
        found = json.loads(text)
    except (OSError, ValueError) as err:
        raise ClusterError(f"cannot read the network configuration list {path}: {err}", "Check --cni-conf.") from err
    plugins = found.get("plugins") if isinstance(found, dict) else None
    are_named = isinstance(plugins, list) and all(isinstance(one, dict) and one.get("type") for one in plugins)
    if not plugins or not are_named or not found.get("name"):
        advice = 'It needs a "name" and "plugins", each with its "type".'
        raise ClusterError(f"{path} is no network configuration list", advice)
    return text


def check_bin_dir(path: Path) -> str:
    """The folder of plugins, as an absolute path. Raises ClusterError where there is none."""
    if not path.is_dir():
        raise ClusterError(f"there is no folder {path} with CNI plugins", "Check --cni-bin-dir.")
    return str(path.absolute())
