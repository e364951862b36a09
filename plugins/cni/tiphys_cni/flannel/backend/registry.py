"""The back ends by name, and clearing up after one that is no longer used. A new back end is one line here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tiphys_cni.flannel.backend.host_gw import HostGw
from tiphys_cni.flannel.backend.interface import Backend, Settings
from tiphys_cni.flannel.backend.udp import Udp
from tiphys_cni.flannel.backend.vxlan import Vxlan
from tiphys_cni.flannel.kernel import KernelSocket

BACKENDS: Mapping[str, Callable[[Settings], Backend]] = {
    Vxlan.name: Vxlan,
    HostGw.name: HostGw,
    Udp.name: Udp,
}

# The devices of all back ends, as flannel names them: flannel.VNI of VXLAN, flannel0 of UDP.
_OVERLAYS = {"vxlan": re.compile(r"flannel\.\d+"), "tun": re.compile(r"flannel\d+")}


def remove_left_over(overlay: str) -> list[str]:
    """Deletes the devices of other back ends, with their routes; returns their names. Blocks for a dump."""
    removed = []
    with KernelSocket() as kernel:
        for link in kernel.links():
            pattern = _OVERLAYS.get(link.kind)
            if pattern is not None and pattern.fullmatch(link.name) and link.name != overlay:
                kernel.delete_link(link.name)
                removed.append(link.name)
    return removed
