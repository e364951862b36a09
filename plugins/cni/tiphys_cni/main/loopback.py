"""loopback: brings lo up inside the container."""

from __future__ import annotations

from tiphys_cni.netlink import IFF_UP
from tiphys_cni.netns import route_socket
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.skel import Plugin
from tiphys_sdk.cni.spec import Address, CNIError, ErrorCode, Interface, Result

_LO = "lo"
_LO_INDEX = 1  # The kernel makes lo first in every network namespace.


def add(call: Call) -> Result:
    """lo up; with a previous result that result goes on unchanged."""
    _need_namespace(call)
    with route_socket(call.netns_fd) as links:
        links.set_flags(_LO_INDEX, IFF_UP)
    if call.previous is not None:
        return call.previous
    lo = Interface(_LO, "00:00:00:00:00:00", call.netns)
    return Result(interfaces=(lo,), ips=(Address("127.0.0.1/8", interface=0),))


def delete(call: Call) -> None:
    """Nothing to do: lo goes with its namespace, and taking it down sooner helps nobody."""


def check(call: Call) -> None:
    """Fails where lo is down."""
    _need_namespace(call)
    with route_socket(call.netns_fd) as links:
        lo = links.link(_LO)
    if lo is None or not lo.is_up:
        raise CNIError(ErrorCode.CHECK_FAILED, f"loopback: lo is down in {call.netns}")


def status(call: Call) -> None:
    """Always ready."""


def collect(call: Call) -> None:
    """Keeps nothing, so nothing to collect."""


def _need_namespace(call: Call) -> None:
    if call.netns_fd < 0:
        raise CNIError(ErrorCode.UNKNOWN_CONTAINER, f"CNI_NETNS: no network namespace at {call.netns!r}")


PLUGIN = Plugin("loopback", add, delete, check, status, collect)
