"""What a node needs once, whatever carries its packets."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from pathlib import Path

from tiphys_cni.flannel import masquerade
from tiphys_cni.flannel.backend.registry import remove_left_over
from tiphys_component.log import get_logger

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")

_log = get_logger("flannel.preparation")


async def prepare(overlay: str, network: IPv4Network, *, ip_masq: bool) -> None:
    """Removes what other back ends left, lets the node forward, and masquerades or no longer does. May be repeated.

    overlay is the one device that stays, empty for none. Raises OSError, CommandError.
    """
    removed = await asyncio.to_thread(remove_left_over, overlay)
    if removed:
        _log.info("devices of other back ends removed", devices=removed)
    await asyncio.to_thread(_FORWARDING.write_text, "1")
    if ip_masq:
        await masquerade.ensure(network)
    else:
        await masquerade.remove()
