"""Netlink sockets inside of network namespaces."""

from __future__ import annotations

from tiphys_cni.netlink import RouteSocket
from tiphys_sdk.cni.netns import inside


def route_socket(netns_fd: int) -> RouteSocket:
    """A netlink socket of the namespace; using it needs no further move."""
    with inside(netns_fd):
        return RouteSocket()
