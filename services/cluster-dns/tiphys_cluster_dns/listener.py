"""UDP and TCP listeners: wire format in, wire format out, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from tiphys_cluster_dns.chain import Chain
from tiphys_component.app import listen_error
from tiphys_component.log import get_logger

_log = get_logger("cluster-dns.listener")
_PLAIN_UDP_BYTES = 512
_TCP_IDLE_S = 10.0
_MOST_IN_FLIGHT = 1024


class Listener:
    """Serves one address on one port, over UDP and TCP."""

    def __init__(self, address: str, port: int, chain: Chain) -> None:
        self._address = address
        self.port = port
        self._chain = chain

    async def run(self) -> None:
        """Serves until cancelled. Raises StartupError where the port can't be had."""
        loop = asyncio.get_running_loop()
        place = f"{self._address}:{self.port}"
        async with asyncio.TaskGroup() as tasks:
            try:
                tcp = await asyncio.start_server(self._serve_tcp, self._address, self.port)
                self.port = tcp.sockets[0].getsockname()[1]
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Udp(self, tasks), local_addr=(self._address, self.port)
                )
            except OSError as err:
                raise listen_error(err, place, "--dns-port") from err
            try:
                await tcp.serve_forever()
            finally:
                transport.close()
                tcp.close()

    async def answer(self, wire: bytes, *, over_udp: bool) -> bytes | None:
        """The response to one message; None for what is no query at all."""
        try:
            query = dns.message.from_wire(wire, ignore_trailing=True)
        except dns.exception.DNSException:
            return _format_error(wire)
        if query.flags & dns.flags.QR:
            return None
        found = (await self._chain.resolve(query)).message
        found.id = query.id
        limit = max(query.payload, _PLAIN_UDP_BYTES) if over_udp else 65535
        try:
            return found.to_wire(max_size=limit)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC | (found.flags & dns.flags.AA)
            return short.to_wire()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            while True:
                async with asyncio.timeout(_TCP_IDLE_S):
                    size = struct.unpack("!H", await reader.readexactly(2))[0]
                    wire = await reader.readexactly(size)
                response = await self.answer(wire, over_udp=False)
                if response is None:
                    break
                writer.write(struct.pack("!H", len(response)) + response)
                await writer.drain()
        writer.close()


class _Udp(asyncio.DatagramProtocol):
    """Starts a task a datagram; past the bound it drops, which is how DNS says that it is busy."""

    def __init__(self, listener: Listener, tasks: asyncio.TaskGroup) -> None:
        self._listener = listener
        self._tasks = tasks
        self._in_flight = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own datagram transport is no subclass of the class that names what it does.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._in_flight >= _MOST_IN_FLIGHT:
            return
        self._in_flight += 1
        self._tasks.create_task(self._respond(data, addr))

    async def _respond(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            response = await self._listener.answer(data, over_udp=True)
            if response is not None and self._transport is not None:
                self._transport.sendto(response, addr)
        except Exception as err:
            _log.error("question failed", err=repr(err), exc_info=err)
        finally:
            self._in_flight -= 1

    def error_received(self, exc: Exception) -> None:
        _log.debug("send failed", err=str(exc))


def _format_error(wire: bytes) -> bytes | None:
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    response = dns.message.Message(id=struct.unpack_from("!H", wire)[0])
    response.flags = dns.flags.QR
    response.set_rcode(dns.rcode.FORMERR)
    return response.to_wire()
