"""The way from this server to pods and services, where its own network does not lead there.

Kubernetes calls it egress selection with http-connect. Without proxies every connection is made directly.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """One HTTP proxy."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As HTTP clients want it."""
        return f"http://{self.host}:{self.port}"


def read_proxy(text: str) -> ProxyAddress:
    """The proxy that http://HOST:PORT names. Raises ValueError for anything else."""
    url = urlsplit(text)
    if url.scheme != "http" or not url.hostname or url.port is None or url.path.strip("/") or url.query:
        raise ValueError(f"{text!r} is not http://HOST:PORT")
    return ProxyAddress(url.hostname, url.port)


class Egress:
    """Opens connections to pods and services, through the first of its proxies that is there.

    A proxy that can't be reached gives its place to the next, and keeps none: whoever answered last is asked first.
    """

    def __init__(self, proxies: Sequence[ProxyAddress] = ()) -> None:
        self._proxies = list(proxies)

    @property
    def proxies(self) -> Sequence[ProxyAddress]:
        """All of them, the one to ask first at the front; empty where connections are direct."""
        return tuple(self._proxies)

    def pass_over(self, proxy: ProxyAddress) -> None:
        """Ask this one last from now on: it could not be reached."""
        self._proxies.remove(proxy)
        self._proxies.append(proxy)

    async def open(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, server_name: str = "", limit: int = _MAX_HEAD_BYTES
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to host and port, with TLS where a context is given.

        server_name is whom the certificate must name, the host by default. Raises OSError and ssl.SSLError.
        """
        name = (server_name or host) if tls else None
        if not self._proxies:
            return await asyncio.open_connection(host, port, ssl=tls, server_hostname=name, limit=limit)
        connected = await self._tunnel(host, port)
        try:
            return await asyncio.open_connection(sock=connected, ssl=tls, server_hostname=name, limit=limit)
        except BaseException:
            connected.close()
            raise

    async def _tunnel(self, host: str, port: int) -> socket.socket:
        last: OSError = ConnectionRefusedError("no egress proxy")
        for proxy in self.proxies:
            try:
                connected = await _connect(proxy)
            except OSError as err:
                self.pass_over(proxy)
                last = err
                continue
            try:
                await _ask_for(connected, host, port)
            except BaseException:
                connected.close()
                raise
            return connected
        raise ConnectionRefusedError(f"no egress proxy can be reached: {last}") from last


async def _connect(proxy: ProxyAddress) -> socket.socket:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in proxy.host else socket.AF_INET
    connected = socket.socket(family, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        await loop.sock_connect(connected, (proxy.host, proxy.port))
    except BaseException:
        connected.close()
        raise
    return connected


async def _ask_for(connected: socket.socket, host: str, port: int) -> None:
    """CONNECT, up to the answer. Raises ConnectionError with the proxy's reason."""
    loop = asyncio.get_running_loop()
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    await loop.sock_sendall(connected, f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
    answer = b""
    # Nothing follows a 200: neither HTTP nor TLS lets a server speak first.
    while b"\r\n\r\n" not in answer:
        piece = await loop.sock_recv(connected, _MAX_HEAD_BYTES)
        if not piece or len(answer) > _MAX_HEAD_BYTES:
            raise ConnectionAbortedError("the egress proxy broke off")
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise ConnectionRefusedError(body.decode(errors="replace").strip() or head.decode(errors="replace"))
