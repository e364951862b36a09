"""Takes calls from launchers on a unix socket and runs each in a thread of its own.

A thread and not the loop, because setns moves a thread and netlink answers block for a moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tiphys_cni.registry import PLUGINS
from tiphys_cni.turns import Turns
from tiphys_component.app import listen_error
from tiphys_component.log import get_logger
from tiphys_sdk.cni.netns import own_identity
from tiphys_sdk.cni.skel import Answer, crashed, run
from tiphys_sdk.cni.spec import CNIError, ErrorCode

_LARGEST_CALL_BYTES = 4 << 20
_READ_TIMEOUT_S = 10.0
_THREADS = 16
_log = get_logger("cni.listener")


class Listener:
    """Listens from `run` on; calls still being served when it is cancelled are finished first."""

    def __init__(self, path: Path, turns: Turns | None = None) -> None:
        self._path = path
        self._turns = turns or Turns()
        self._namespace = own_identity()

    async def run(self) -> None:
        """Serves until cancelled. Raises StartupError where the socket can't be made."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        try:
            listener.bind(str(fresh))
        except OSError as err:
            raise listen_error(err, str(self._path), "--socket") from err
        os.chmod(fresh, 0o600)
        listener.listen(128)
        # Renamed once it listens: a launcher never finds a socket that refuses.
        fresh.replace(self._path)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="cni") as threads:
                while True:
                    connection, _ = await loop.sock_accept(listener)
                    threads.submit(self._serve, connection)
        finally:
            listener.close()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.setblocking(True)
                connection.settimeout(_READ_TIMEOUT_S)
                answer = self._answer(connection)
                connection.sendall(bytes([answer.exit_code]) + answer.stdout)
            except OSError as err:
                _log.warning("launcher went away", err=str(err))

    def _answer(self, connection: socket.socket) -> Answer:
        netns_fd = -1
        try:
            self._refuse_strangers(connection)
            payload, netns_fd = _receive(connection)
            head, _, stdin = payload.partition(b"\0\0")
            plugin, *variables = head.decode().split("\0")
            environment = dict(v.split("=", 1) for v in variables)
            if plugin not in PLUGINS:
                raise CNIError(ErrorCode.INVALID_ENVIRONMENT, f"no plugin {plugin!r} here")
            with self._turns.of(environment.get("CNI_CONTAINERID", "")):
                answer = run(PLUGINS[plugin], environment, stdin, netns_fd)
            _log.debug("served", plugin=plugin, verb=environment.get("CNI_COMMAND"), exit_code=answer.exit_code)
            return answer
        except CNIError as err:
            return Answer(1, json.dumps(err.to_json("1.0.0")).encode() + b"\n")
        except Exception as err:
            _log.error("call failed", err=repr(err), exc_info=err)
            return crashed(err)
        finally:
            if netns_fd >= 0:
                os.close(netns_fd)

    def _refuse_strangers(self, connection: socket.socket) -> None:
        """A caller from another network namespace would get interfaces where it does not expect them."""
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = struct.unpack("3i", peer)[0]
        try:
            found = os.stat(f"/proc/{pid}/ns/net")
        except OSError as err:
            raise CNIError(ErrorCode.IO_FAILURE, f"caller {pid} is gone: {err}") from err
        if (found.st_dev, found.st_ino) != self._namespace:
            message = "the CNI service works in another network namespace than its caller"
            raise CNIError(ErrorCode.IO_FAILURE, message, f"service socket {self._path}, caller pid {pid}")


def _receive(connection: socket.socket) -> tuple[bytes, int]:
    """A call's payload and the namespace that came with it, -1 without. Raises CNIError."""
    head, fds, _, _ = socket.recv_fds(connection, 4, 1)
    netns_fd = fds[0] if fds else -1
    try:
        size = int.from_bytes(head, "big")
        if len(head) != 4 or size > _LARGEST_CALL_BYTES:
            raise CNIError(ErrorCode.DECODING_FAILURE, f"a call of {size} bytes is refused")
        payload = bytearray()
        while len(payload) < size:
            piece = connection.recv(size - len(payload))
            if not piece:
                raise CNIError(ErrorCode.IO_FAILURE, "the launcher ended in the middle of its call")
            payload += piece
        return bytes(payload), netns_fd
    except BaseException:
        if netns_fd >= 0:
            os.close(netns_fd)
        raise
