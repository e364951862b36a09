"""Ports for clusters of tests: a block that is free now, below those that the kernel gives to clients."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

from tiphys_cluster.ports import Ports

_STEP = 500
# The highest port of a cluster stays below 32768, where Linux begins to give out ports to connections.
_LAST = 21500


def free_port_offset() -> int:
    """An offset all of whose ports are free; tests that run at once begin their search at different places."""
    for offset in _offsets(os.getpid()):
        if all(_is_free(port) for port in _ports(offset)):
            return offset
    raise AssertionError("no block of ports is free for a cluster: stop those that were left over")


def _offsets(seed: int) -> Iterator[int]:
    count = _LAST // _STEP
    for place in range(count):
        yield ((seed + place) % count + 1) * _STEP


def _ports(offset: int) -> list[int]:
    ports = Ports(offset)
    names = [name for name, member in vars(Ports).items() if isinstance(member, property)]
    return [getattr(ports, name) for name in names]


def _is_free(port: int) -> bool:
    with ExitStack() as stack:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            opened = stack.enter_context(socket.socket(socket.AF_INET, kind))
            try:
                opened.bind(("", port))
            except OSError:
                return False
    return True


def free_port() -> int:
    """A port of this machine that is free now, for a server that can't be asked which one it took."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
