"""What the node's network keeps for containers, and freeing what is left of those that are gone.

containerd 1.6 does not know the verb GC, so the kubelet, who sees what containerd has, names what is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys_cni import hostports
from tiphys_cni.ipam.store import Store
from tiphys_cni.netlink import RouteSocket
from tiphys_cni.registry import PLUGINS
from tiphys_cni.turns import Turns
from tiphys_sdk.cni.conf import VALID_ATTACHMENTS, Attachment, Call
from tiphys_sdk.cni.spec import NEWEST_VERSION

_PREFIX = "cni "


def ports(network: str) -> dict[Attachment, str]:
    """The host interface of each attachment, as bridge ports note it. Blocks for one netlink dump."""
    with RouteSocket() as host:
        notes = [(link.alias.removeprefix(_PREFIX).split(" "), link) for link in host.links()]
    return {
        Attachment(words[1], words[2]): link.name
        for words, link in notes
        if link.alias.startswith(_PREFIX) and len(words) == 3 and words[0] == network
    }


def kept(network: Mapping[str, Any]) -> set[Attachment]:
    """All for whom something is kept on a network: an interface, an address, a host port. Blocks."""
    name = str(network["name"])
    found = set(ports(name))
    for plugin in network["plugins"]:
        ipam = plugin.get("ipam") or {}
        data_dir = str(ipam.get("dataDir", ""))
        if Store.folder(name, data_dir).is_dir():
            owners = Store(name, data_dir).taken().values()
            found |= {Attachment(owner.container_id, owner.ifname) for owner in owners}
        if plugin["type"] == "portmap":
            for comment in hostports.present().values():
                words = comment.partition("/")[2].split(" ")
                if hostports.belongs_to(comment, name) and len(words) == 2:
                    found.add(Attachment(*words))
    return found


def collect(network: Mapping[str, Any], valid: Iterable[Attachment]) -> None:
    """Has each plugin of a configuration list do the verb GC, the last of the chain first. Blocks. Raises CNIError.

    Of a plugin that is not ours only the addresses are freed, where our host-local or the reference one gave them.
    """
    entries = [{"containerID": one.container_id, "ifname": one.ifname} for one in valid]
    for plugin in reversed(network["plugins"]):
        conf = {**plugin, "cniVersion": NEWEST_VERSION, "name": network["name"], VALID_ATTACHMENTS: entries}
        ipam = str((plugin.get("ipam") or {}).get("type", ""))
        if doer := PLUGINS.get(plugin["type"]) or PLUGINS.get(ipam):
            doer.collect(Call("GC", "", "", -1, "", "", "", conf))


def free(network: Mapping[str, Any], gone: Iterable[Attachment], turns: Turns) -> int:
    """Frees all of those that are gone, nothing of others; how many had something. Blocks. Raises CNIError."""
    with turns.alone():
        there = kept(network)
        garbage = there & set(gone)
        if garbage:
            collect(network, there - garbage)
        return len(garbage)
