"""Unix sockets of plugins: a path is made free only when nobody listens there."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from tiphys_component.app import StartupError
from tiphys_component.rpc import unix_address

# sockaddr_un has room for 108 bytes, the last one zero.
MAX_PATH_BYTES = 107
_CONNECT_TIMEOUT_S = 1.0


def socket_path(endpoint: str) -> Path:
    """The path in an endpoint, written unix:///path, unix:/path or plainly; raises StartupError for any other."""
    path = endpoint.removeprefix("unix://") if endpoint.startswith("unix://") else endpoint.removeprefix("unix:")
    if not path.startswith("/"):
        raise StartupError(f"endpoint {endpoint!r} is no unix socket", "write it as unix:///path/to/plugin.sock")
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise StartupError(f"endpoint {endpoint!r} is longer than {MAX_PATH_BYTES} bytes", "choose a shorter folder")
    return Path(path)


def is_listening(path: Path) -> bool:
    """Whether someone takes connections there. Blocks for as long as a full backlog does, at most a second."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def claim(path: Path) -> str:
    """Makes the folder, removes the socket that a dead process left, and returns the gRPC address to listen on.

    Raises StartupError where another process listens, or where something lies that is no socket: neither is ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return unix_address(path)
    if not stat.S_ISSOCK(mode):
        raise StartupError(f"{path} exists and is no socket", "remove it, or choose another path")
    if is_listening(path):
        raise StartupError(f"another process listens on {path}", "stop it, or choose another path")
    path.unlink(missing_ok=True)
    return unix_address(path)
