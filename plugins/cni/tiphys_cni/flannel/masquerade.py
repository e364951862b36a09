"""Hides pods behind their node's address on the way out of the pod network, by one nftables table of the node.

From pod to pod nothing is hidden, also across nodes: the bridge's own masquerading knows only the node's subnet and
would hide it, so the bridge runs without. What kube-proxy marks in its table stays kube-proxy's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import IPv4Network

from tiphys_cni.flannel.monitor import messages
from tiphys_cni.netlink import attributes
from tiphys_component.proc import run_command

TABLE = "flannel-ipv4"
_TIMEOUT_S = 10.0
# Source: linux/netfilter/nfnetlink.h and nf_tables.h.
_NETLINK_NETFILTER, _GROUP_NFTABLES = 12, 7
_DELTABLE, _TABLE_NAME, _NFGENMSG_BYTES = 10 << 8 | 2, 1, 4
_BATCH = 64


def rule_set(network: IPv4Network) -> str:
    """Commands that make the table's one chain what it should be, at once. Pure.

    The table is never deleted for it: whoever hears of a deletion may take it for another's.
    """
    return f"""add table ip {TABLE}
add chain ip {TABLE} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain ip {TABLE} postrouting
add rule ip {TABLE} postrouting ip saddr {network} ip daddr != {network} ip daddr != 224.0.0.0/4 masquerade fully-random
"""


async def ensure(network: IPv4Network) -> None:
    """Writes the table. Raises CommandError with what nft said."""
    await run_command(("nft", "-f", "-"), stdin=rule_set(network).encode(), timeout_s=_TIMEOUT_S)


async def remove() -> None:
    """Removes the table; one that is absent is well. Raises CommandError."""
    text = f"table ip {TABLE}\ndelete table ip {TABLE}\n"
    await run_command(("nft", "-f", "-"), stdin=text.encode(), timeout_s=_TIMEOUT_S)


async def watch(on_lost: Callable[[], None]) -> None:
    """Calls on_lost whenever the table was deleted, or may have been. Runs until cancelled. Raises OSError."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER) as ear:
        ear.bind((0, 1 << (_GROUP_NFTABLES - 1)))
        loop = asyncio.get_running_loop()
        loop.add_reader(ear.fileno(), _read, ear, on_lost)
        try:
            await loop.create_future()
        finally:
            loop.remove_reader(ear.fileno())


def _read(ear: socket.socket, on_lost: Callable[[], None]) -> None:
    for _ in range(_BATCH):
        try:
            data = ear.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as err:
            if err.errno != errno.ENOBUFS:
                raise
            on_lost()
            continue
        if any(kind == _DELTABLE and is_ours(body) for kind, body in messages(data)):
            on_lost()


def is_ours(body: bytes) -> bool:
    """Whether a message of nftables is of our table."""
    name = next((value for key, value in attributes(body[_NFGENMSG_BYTES:]) if key == _TABLE_NAME), b"")
    return name.rstrip(b"\0") == TABLE.encode()
