"""Serving on a unix socket below the kubelet's root directory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_component.rpc import ErrorMapper, Server, Servicer, unix_address

# sockaddr_un has room for 108 bytes, the last one zero.
MAX_PATH_BYTES = 107
_GRACE_S = 0.2


async def serve_socket(path: Path, service: Servicer, reply: ErrorMapper) -> None:
    """Serves until cancelled. Raises StartupError if the socket can't be had.

    A path that is too long for a socket is told of and not served: the pods of the node do not depend on it.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        get_logger("kubelet").error(
            "path is too long for a socket, nothing is served there; choose a shorter --root-dir",
            path=str(path),
            most_bytes=MAX_PATH_BYTES,
        )
        await asyncio.get_running_loop().create_future()
    await to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    await Server(unix_address(path), None, (service,), reply, flag="--root-dir", grace_s=_GRACE_S).run()
