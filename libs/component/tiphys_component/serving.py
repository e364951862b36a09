"""The flags and listeners that every service with a gRPC face and a metrics port has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiphys_component import status_server
from tiphys_component.app import start_loop
from tiphys_component.health import Health
from tiphys_component.metrics import Registry
from tiphys_component.options import LogOptions, flag
from tiphys_component.rpc import ErrorMapper, Server, Servicer
from tiphys_component.tls import TLSFiles
from tiphys_component.zpages import ZPages


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions(LogOptions):
    """The flags of a service that speaks gRPC; its own options inherit from this."""

    tls_cert_file: Path | None = flag("--tls-cert-file", default=None, help="certificate of the gRPC face, PEM")
    tls_private_key_file: Path | None = flag("--tls-private-key-file", default=None, help="its key, PEM")
    client_ca_file: Path | None = flag(
        "--client-ca-file", default=None, help="authority whose client certificates the gRPC face accepts"
    )

    @property
    def tls(self) -> TLSFiles | None:
        """The files as a server takes them; None for plain text, where no certificate is given."""
        if self.tls_cert_file is None:
            return None
        return TLSFiles(self.tls_cert_file, self.tls_private_key_file, self.client_ca_file)


@dataclass(frozen=True, slots=True)
class Face:
    """What a service shows beside its work: gRPC on one address, metrics and health over HTTP on another."""

    host: str
    grpc_port: int
    status_port: int
    servicers: Sequence[Servicer]
    registry: Registry
    health: Health
    tls: TLSFiles | None = None
    error_mapper: ErrorMapper | None = None
    pages: ZPages | None = None

    async def run(self) -> None:
        """Serves both until cancelled; neither where the port of gRPC is -1. Raises StartupError for a port taken."""
        if self.grpc_port < 0:
            await asyncio.get_running_loop().create_future()
        server = Server(
            f"{self.host}:{self.grpc_port}", self.tls, self.servicers, self.error_mapper, flag="--grpc-port"
        )
        async with asyncio.TaskGroup() as group:
            start_loop(group, server.run(), "grpc face")
            status = status_server.serve(self.host, self.status_port, self.registry, self.health, pages=self.pages)
            start_loop(group, status, "metrics and health")
