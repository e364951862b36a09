"""An API server of our own for tests: on free ports, over a memory store, with an authority made for it.

    async with running_server() as server:
        status, body = await server.http("GET", "/api/v1/namespaces")

Real sockets and TLS, one process. `server.grpc(service, method, request)` calls the other door.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import orjson
from grpc.aio import Channel, UnaryStreamCall

from tiphys.apiserver.v1 import wire_pb2
from tiphys_apiserver.main import ApiServer
from tiphys_apiserver.options import Options
from tiphys_component.rpc import channel
from tiphys_component.tls import CertificateAuthority, TLSFiles, create_service_account_key

JSON = "application/json"


async def next_batch(watch: UnaryStreamCall[bytes, bytes]) -> wire_pb2.WatchResponse:
    """The next answer of a watch that is not at its end."""
    raw = await watch.read()
    assert isinstance(raw, bytes)
    return wire_pb2.WatchResponse.FromString(raw)


@dataclass(frozen=True, slots=True)
class Pki:
    """Files of one authority; users are named as their certificates."""

    folder: Path

    def tls(self, user: str) -> TLSFiles:
        """What a client who is this user shows and trusts."""
        return TLSFiles(self.folder / f"{user}.crt", self.folder / f"{user}.key", self.folder / "ca.crt")


USERS: Mapping[str, tuple[str, ...]] = {
    "admin": ("system:masters",),
    "alice": ("dev",),
    "system:node:n1": ("system:nodes",),
    "system:flannel": (),
}


@cache
def shared_pki() -> Pki:
    """Made once for all tests of a run."""
    folder = Path(mkdtemp(prefix="tiphys-apiserver-pki-"))
    authority = CertificateAuthority.create("test-ca")
    authority.credential.write(folder / "ca.crt", folder / "ca.key")
    names = ["127.0.0.1", "localhost"]
    authority.issue("kube-apiserver", sans=names, server=True).write(folder / "server.crt", folder / "server.key")
    for user, groups in USERS.items():
        issued = authority.issue(user, organizations=groups, client=True)
        issued.write(folder / f"{user}.crt", folder / f"{user}.key")
    private, public = create_service_account_key()
    (folder / "sa.key").write_bytes(private)
    (folder / "sa.pub").write_bytes(public)
    return Pki(folder)


@dataclass(slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(slots=True)
class RunningServer:
    """A server that answers; close what you open with stream() yourself."""

    api: ApiServer
    pki: Pki
    _channels: dict[str, Channel] = field(default_factory=dict)

    def client_context(self, user: str | None) -> ssl.SSLContext:
        """TLS of a client; None shows no certificate."""
        context = ssl.create_default_context(cafile=str(self.pki.folder / "ca.crt"))
        if user is not None:
            context.load_cert_chain(self.pki.folder / f"{user}.crt", self.pki.folder / f"{user}.key")
        return context

    async def connect(self, user: str | None = "admin") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection to the HTTPS port."""
        return await asyncio.open_connection(
            "127.0.0.1", self.api.secure_port, ssl=self.client_context(user), limit=1 << 26
        )

    async def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> Reply:
        """One request on a connection of its own; body is bytes, or values to be written as JSON."""
        data = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"Host": "x", "Accept": JSON, "Connection": "close", **(headers or {})}
        if data:
            sent |= {"Content-Type": content_type, "Content-Length": str(len(data))}
        reader, writer = await self.connect(user)
        try:
            head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
            async with asyncio.timeout(10):
                return await read_reply(reader)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def grpc(self, service: str, method: str, request: Any, *, user: str = "admin") -> bytes:
        """The answer's bytes; service without the leading tiphys.apiserver. Raises grpc.aio.AioRpcError."""
        call = self.channel(user).unary_unary(f"/tiphys.apiserver.{service}/{method}", None, None)
        answer: bytes = await call(request.SerializeToString(), timeout=10)
        return answer

    def watch(
        self, service: str, request: wire_pb2.WatchRequest, *, user: str = "admin"
    ) -> UnaryStreamCall[bytes, bytes]:
        """A watch's call, whose answers are bytes of a WatchResponse; cancel it in the end."""
        call = self.channel(user).unary_stream(f"/tiphys.apiserver.{service}/Watch", None, None)
        return call(request.SerializeToString())

    async def grpc_by_token(self, service: str, method: str, request: Any, token: str) -> bytes:
        """The same for a caller who has a bearer token and no certificate."""
        target = f"127.0.0.1:{self.api.grpc_token_port}"
        async with channel(target, TLSFiles(ca=self.pki.folder / "ca.crt")) as opened:
            call = opened.unary_unary(f"/tiphys.apiserver.{service}/{method}", None, None)
            metadata = (("authorization", f"Bearer {token}"),)
            answer: bytes = await call(request.SerializeToString(), timeout=10, metadata=metadata)
            return answer

    def channel(self, user: str = "admin") -> Channel:
        """The user's channel to the gRPC port."""
        if user not in self._channels:
            self._channels[user] = channel(f"127.0.0.1:{self.api.grpc_port}", self.pki.tls(user))
        return self._channels[user]

    async def close(self) -> None:
        """Close the channels."""
        for opened in self._channels.values():
            await opened.close(None)


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Read one whole HTTP answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1])
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)]
    found = {name.lower(): value for name, value in headers}
    if found.get("transfer-encoding") == "chunked":
        body = b"".join([piece async for piece in read_chunks(reader)])
    else:
        body = await reader.readexactly(int(found.get("content-length", "0")))
    return Reply(status, headers, body)


async def read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The chunks of a body until the last one."""
    while True:
        size = int((await reader.readuntil(b"\r\n")).strip(), 16)
        data = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield data[:-2]


def options_for(pki: Pki, **changes: Any) -> Options:
    """Options of a server for tests."""
    folder = pki.folder
    return Options(
        **{
            "bind_address": ("127.0.0.1",),
            "secure_port": 0,
            "grpc_port": 0,
            "grpc_token_port": 0,
            "store": "memory",
            "tls_cert_file": folder / "server.crt",
            "tls_private_key_file": folder / "server.key",
            "client_ca_file": folder / "ca.crt",
            "service_account_key_file": (str(folder / "sa.pub"),),
            "service_account_signing_key_file": folder / "sa.key",
            "kubelet_client_certificate": folder / "admin.crt",
            "kubelet_client_key": folder / "admin.key",
            **changes,
        }
    )


@asynccontextmanager
async def running_server(**changes: Any) -> AsyncIterator[RunningServer]:
    """A server that is ready, stopped at the end of the block."""
    pki = shared_pki()
    api = ApiServer(options_for(pki, **changes))
    server = RunningServer(api, pki)
    task = asyncio.create_task(api.run(), name="api server")
    ready = asyncio.create_task(api.ready.wait())
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        ready.cancel()
        task.result()
    try:
        yield server
    finally:
        await server.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
