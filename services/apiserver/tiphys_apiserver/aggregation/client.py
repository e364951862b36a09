"""Connections to other API servers: where they are, TLS both ways, and short questions on this server's own account."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apiserver.admission.webhooks.caller import CallFailed, Resolve
from tiphys_apiserver.aggregation.front_proxy import AGGREGATOR, identity_headers
from tiphys_apiserver.aggregation.remotes import Remote
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.rest.fetch import Document, fetch
from tiphys_apiserver.rest.tunnel import Target
from tiphys_apiserver.server.egress import Egress

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Certificate and key that this server shows; None where it shows none."""

    cert: Path | None
    key: Path | None


class RemoteClient:
    """Makes targets of remotes. TLS contexts are kept until the client certificate's file changes."""

    def __init__(self, resolve: Resolve, egress: Egress, files: ClientFiles) -> None:
        self._resolve = resolve
        self._egress = egress
        self._files = files
        self._contexts: dict[tuple[bytes, bool, int], ssl.SSLContext] = {}

    async def target(self, remote: Remote, path: str, user: UserInfo) -> Target:
        """Where a user's request is sent on to. Raises ServiceUnavailable where the service leads nowhere."""
        try:
            host, port = await self._resolve(remote.service, remote.port)
            context = self._context(remote)
        except (CallFailed, OSError, ValueError) as err:
            raise ServiceUnavailable(f"error trying to reach service: {err}") from err
        name = "" if remote.insecure else remote.server_name
        return Target(host, port, path, context, name, identity_headers(user), self._egress)

    async def read(self, remote: Remote, path: str, *, accept: str = "application/json") -> Document:
        """GET on this server's own account. Raises ServiceUnavailable where no whole answer comes in time."""
        target = await self.target(remote, path, AGGREGATOR)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await fetch(target, accept)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError) as err:
            where = f"https://{target.host}:{target.port}{path}"
            raise ServiceUnavailable(f'error trying to reach service: Get "{where}": {err or "timeout"}') from err

    def _context(self, remote: Remote) -> ssl.SSLContext:
        cert = self._files.cert
        key = (remote.ca_bundle, remote.insecure, cert.stat().st_mtime_ns if cert is not None else 0)
        context = self._contexts.get(key)
        if context is None:
            self._contexts = {kept: made for kept, made in self._contexts.items() if kept[2] == key[2]}
            context = self._contexts[key] = self._new_context(remote)
        return context

    def _new_context(self, remote: Remote) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=remote.ca_bundle.decode() if remote.ca_bundle else None)
        if remote.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._files.cert is not None:
            context.load_cert_chain(self._files.cert, self._files.key)
        return context
