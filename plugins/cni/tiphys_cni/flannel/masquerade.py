"""Hides pods behind their node's address on the way out of the pod network, by one nftables table of the node.

From pod to pod nothing is hidden, also across nodes: the bridge's own masquerading knows only the node's subnet and
would hide it, so the bridge runs without. What kube-proxy marks in its table stays kube-proxy's.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from tiphys_component.proc import run_command

TABLE = "flannel-ipv4"
_TIMEOUT_S = 10.0


def rule_set(network: IPv4Network) -> str:
    """The table's text; applying it replaces the whole table at once. Pure."""
    return f"""table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} ip daddr != {network} ip daddr != 224.0.0.0/4 masquerade fully-random
  }}
}}
"""


async def ensure(network: IPv4Network) -> None:
    """Writes the table. Raises CommandError with what nft said."""
    await run_command(("nft", "-f", "-"), stdin=rule_set(network).encode(), timeout_s=_TIMEOUT_S)


async def remove() -> None:
    """Removes the table; one that is absent is well. Raises CommandError."""
    text = f"table ip {TABLE}\ndelete table ip {TABLE}\n"
    await run_command(("nft", "-f", "-"), stdin=text.encode(), timeout_s=_TIMEOUT_S)
