"""The fake server behind a real gRPC server, for tests of the transport."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from tiphys_client.fake import FakeServer
from tiphys_client.grpc_status import reply_for
from tiphys_component.rpc import Server, Servicer
from tiphys_component.tls import TLSFiles


class Bridge(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # the stubs alone have arguments
    """Hands every call to the fake, and remembers the authorization it came with."""

    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake
        self.authorization: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        self.authorization += [str(value) for key, value in details.invocation_metadata if key == "authorization"]
        _, service, method = details.method.split("/")

        async def unary(request: bytes, _context: Any) -> bytes:
            return await self._fake.unary(service, method, request)

        async def stream(request: bytes, _context: Any) -> AsyncIterator[bytes]:
            async for reply in self._fake.stream(service, method, request):
                yield reply

        if method == "Watch":
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


def make_server(bridge: Bridge, bind: str, tls: TLSFiles | None = None) -> Server:
    servicer = Servicer((), lambda server: server.add_generic_rpc_handlers((bridge,)))
    return Server(bind, tls, [servicer], reply_for, grace_s=0.05)
