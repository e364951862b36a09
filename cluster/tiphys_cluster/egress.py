"""How a node's containerd reaches registries: an HTTP proxy on the control plane's leg.

The same proxy stands the other way round on the first nodes: there it takes the API server to pods and services, which
no route of the host's leads to.

A node's namespace has no way out, because giving it one would take forwarding and a rule in the host's own. This proxy
needs neither: containerd is told of it (HTTPS_PROXY), names are resolved where the host resolves them, and where the
host itself needs a proxy, that one is asked in turn. It serves the cluster's own network only, and reaches nothing that
only this machine may reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tiphys_component import app, log
from tiphys_component.options import LogOptions, flag, parse

NAME = "registry-proxy"

_HEAD_LIMIT = 64 << 10
_HEAD_TIMEOUT_S = 30.0
_DIAL_TIMEOUT_S = 30.0
_CHUNK = 64 << 10
_log = log.get_logger(NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """An HTTP proxy for the image pulls of a cluster's nodes."""

    bind_address: str = flag("--bind-address", help="address to listen on")
    port: int = flag("--port", default=10271, help="port to listen on; 0 takes a free one")
    allow_from: str = flag("--allow-from", help="network whose connections are served, as 198.18.0.0/24")
    upstream: str = flag("--upstream", default="", help="URL of the proxy that this machine itself has to use")


class Refused(Exception):
    """A request that gets an answer other than a connection; status is HTTP's."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """What the first line and the header of a proxy request ask: where to, and what to say there first."""

    host: str
    port: int
    is_tunnel: bool
    head: bytes


def parse_request(head: bytes) -> Request:
    """Read a request's head, as RFC 9112 gives it to a proxy: CONNECT host:port, or a method with an absolute URL.

    Raises Refused for anything else.
    """
    line, _, rest = head.partition(b"\r\n")
    try:
        method, target, version = line.decode("ascii").split(" ")
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = url.hostname, url.port
    except (UnicodeDecodeError, ValueError) as err:
        raise Refused("400 Bad Request", "not a proxy request") from err
    if not host or (method == "CONNECT" and port is None) or (method != "CONNECT" and url.scheme != "http"):
        raise Refused("400 Bad Request", "not a proxy request")
    if method == "CONNECT":
        return Request(host, port or 443, True, b"")
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    # One request a connection: what follows may be for another host, which only this proxy would know.
    kept = [field for field in rest.split(b"\r\n") if field and not _is_hop_field(field)]
    fields = [f"{method} {path} {version}".encode(), *kept, b"Connection: close", b"", b""]
    return Request(host, port or 80, False, b"\r\n".join(fields))


def _is_hop_field(field: bytes) -> bool:
    return field.partition(b":")[0].strip().lower() in (b"connection", b"proxy-connection", b"keep-alive")


def is_reachable(address: str) -> bool:
    """Whether a node may be connected there: not to what only this machine, or only its link, may reach."""
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


class Proxy:
    """The listener. port is known once it serves."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._network = ipaddress.ip_network(options.allow_from)
        self.port = options.port
        self.serving = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled. Raises StartupError where the port is taken."""
        host = self._options.bind_address
        try:
            server = await asyncio.start_server(self._serve, host, self.port, limit=_HEAD_LIMIT)
        except OSError as err:
            raise app.listen_error(err, f"{host}:{self.port}", "--port") from err
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            self.serving.set()
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handle(reader, writer)
        except Refused as err:
            _log.warning("refused", peer=writer.get_extra_info("peername"), err=str(err))
            with contextlib.suppress(OSError):
                writer.write(f"HTTP/1.1 {err.status}\r\nConnection: close\r\n\r\n{err}\n".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError) as err:
            _log.debug("connection ended", err=str(err))
        finally:
            writer.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Read before it is judged: closing on unread data would reset the connection, and the answer would be lost.
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        peer = writer.get_extra_info("peername")[0]
        if ipaddress.ip_address(peer) not in self._network:
            raise Refused("403 Forbidden", f"{peer} is not of this cluster")
        request = parse_request(head)
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT_S):
                far_reader, far_writer = await self._dial(request)
        except (OSError, TimeoutError) as err:
            raise Refused("502 Bad Gateway", f"cannot reach {request.host}:{request.port}: {err}") from err
        try:
            if request.is_tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pipe(reader, far_writer), name="to registry")
                tasks.create_task(_pipe(far_reader, writer), name="from registry")
        except* OSError as group:
            _log.debug("connection ended", err=str(group.exceptions[0]))
        finally:
            far_writer.close()

    async def _dial(self, request: Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._options.upstream:
            return await self._dial_upstream(request)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(request.host, request.port, type=1)
        addresses = [str(entry[4][0]) for entry in found]
        allowed = [address for address in addresses if is_reachable(address)]
        if not allowed:
            raise Refused("403 Forbidden", f"{request.host} is an address of this machine only")
        # The address that was judged is the one that is dialled: a second look-up might answer otherwise.
        reader, writer = await asyncio.open_connection(allowed[0], request.port, limit=_HEAD_LIMIT)
        writer.write(request.head)
        return reader, writer

    async def _dial_upstream(self, request: Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = urlsplit(self._options.upstream)
        where = f"{request.host}:{request.port}"
        reader, writer = await asyncio.open_connection(url.hostname, url.port or 80, limit=_HEAD_LIMIT)
        writer.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer.split(b" ", 2)[1] != b"200":
            writer.close()
            raise Refused("502 Bad Gateway", f"the proxy {url.hostname} refused {where}")
        writer.write(request.head)
        return reader, writer


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the proxy with these flags until a signal; the exit code."""
    options = parse(Options, argv, prog=NAME)
    log.configure(options.log_level, options.log_format)
    return app.run(lambda: Proxy(options).run(), name=NAME)
