"""TLS settings for ssl (REST, status pages) and gRPC, re-read when their files change.

A server looks at its files when a client connects, at most once a second, and answers with what they hold now. Nothing
restarts and no connection is cut when a certificate is renewed. A pair that can't be read, as when one of its two files
is not written yet, is left out and the old one goes on.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from tiphys_component.app import StartupError
from tiphys_component.certificates import (
    CertificateAuthority,
    Credential,
    Identity,
    create_request,
    create_service_account_key,
    identity,
    write_file,
)
from tiphys_component.log import get_logger

__all__ = [
    "CertificateAuthority",
    "ClientAuth",
    "Credential",
    "Identity",
    "TLSFiles",
    "client_ssl_context",
    "create_request",
    "create_service_account_key",
    "grpc_channel_credentials",
    "grpc_server_credentials",
    "identity",
    "server_ssl_context",
    "write_file",
]

_LOOK_EVERY_S = 1.0

ValueT = TypeVar("ValueT")


class ClientAuth(Enum):
    """What a server asks of its clients' certificates; one that is shown is always verified."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Where one side's certificate, key and trusted authorities lie, all PEM.

    A server needs cert and key, and ca if it verifies clients. A client needs ca, and cert and key if it has them.
    more_cas are further authorities whose clients a server lets in; it is for others to tell them apart.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    more_cas: tuple[Path, ...] = ()

    def paths(self) -> tuple[Path, ...]:
        """The files that are given."""
        return tuple(path for path in (self.cert, self.key, *self.authorities()) if path is not None)

    def authorities(self) -> tuple[Path, ...]:
        """The files of all authorities."""
        return (*(() if self.ca is None else (self.ca,)), *self.more_cas)


def server_ssl_context(
    files: TLSFiles,
    *,
    client_auth: ClientAuth = ClientAuth.OPTIONAL,
    alpn: tuple[str, ...] = ("http/1.1",),
    not_reloaded: Callable[[], None] = lambda: None,
) -> ssl.SSLContext:
    """A context for a server that follows its files; not_reloaded hears of each time that they can't be used.

    Raises StartupError, which names the file, when they can't be read now.
    """

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(alpn))
        cert, key = _pair(files)
        context.load_cert_chain(cert, key)
        if client_auth is ClientAuth.REQUIRED:
            context.verify_mode = ssl.CERT_REQUIRED
        elif client_auth is ClientAuth.OPTIONAL and files.authorities():
            context.verify_mode = ssl.CERT_OPTIONAL
        if client_auth is not ClientAuth.NONE:
            for authority in files.authorities():
                context.load_verify_locations(authority)
        return context

    watched = _Watched(files, make, not_reloaded)
    outer = watched.first()

    # OpenSSL has copied the certificate by the time of this callback, so the connection is handed to the new context.
    def on_hello(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        current = watched.current()
        if current is not outer:
            connection.context = current

    outer.sni_callback = on_hello
    return outer


def client_ssl_context(files: TLSFiles) -> ssl.SSLContext:
    """A context for a client: verifies the server by ca (the system's authorities without it), shows cert if given.

    Raises StartupError, which names the file, when they can't be read.
    """

    def make() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(files.ca) if files.ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if files.cert is not None:
            context.load_cert_chain(files.cert, files.key)
        return context

    return _Watched(files, make).first()


def grpc_server_credentials(
    files: TLSFiles, *, client_auth: ClientAuth = ClientAuth.REQUIRED
) -> grpc.ServerCredentials:
    """gRPC server credentials that follow their files.

    Raises StartupError when the files can't be read now or lack the authority for clients, and ValueError for
    OPTIONAL: Python's gRPC either asks for a client certificate and requires it, or does not ask.
    """
    if client_auth is ClientAuth.OPTIONAL:
        raise ValueError("gRPC in Python can't ask for a client certificate without requiring it")
    required = client_auth is ClientAuth.REQUIRED
    if required and not files.authorities():
        raise StartupError("clients can't be verified without an authority", "give --client-ca-file")

    def make() -> Any:
        cert, key = _pair(files)
        roots = b"\n".join(path.read_bytes() for path in files.authorities()) if required else None
        # The pair is tried here, because grpc would fail the handshake and say nothing of the reason.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
        pairs = [(key.read_bytes(), cert.read_bytes())]
        return grpc.ssl_server_certificate_configuration(pairs, root_certificates=roots)

    watched = _Watched(files, make)
    first = watched.first()
    served = [first]

    def fetch() -> Any:
        current = watched.current()
        if current is served[0]:
            return None
        served[0] = current
        return current

    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=required)


def grpc_channel_credentials(files: TLSFiles) -> grpc.ChannelCredentials:
    """gRPC client credentials from files; raises StartupError when they can't be read."""

    def make() -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=files.ca.read_bytes() if files.ca else None,
            private_key=files.key.read_bytes() if files.key else None,
            certificate_chain=files.cert.read_bytes() if files.cert else None,
        )

    return _Watched(files, make).first()


def _pair(files: TLSFiles) -> tuple[Path, Path]:
    if files.cert is None or files.key is None:
        raise StartupError(
            "a TLS server needs a certificate and a key", "give --tls-cert-file and --tls-private-key-file"
        )
    return files.cert, files.key


class _Watched(Generic[ValueT]):
    """A value made from files, made again when they have changed. Called by the loop and by gRPC's threads."""

    def __init__(
        self, files: TLSFiles, make: Callable[[], ValueT], not_reloaded: Callable[[], None] = lambda: None
    ) -> None:
        self._files = files
        self._make = make
        self._not_reloaded = not_reloaded
        self._lock = threading.Lock()
        self._value: ValueT | None = None
        self._stamp: tuple[object, ...] = ()
        self._looked = 0.0

    def first(self) -> ValueT:
        """Make the value; raises StartupError."""
        self._stamp, self._looked = self._read_stamp(), time.monotonic()
        try:
            self._value = value = self._make()
        except (OSError, ValueError) as err:
            names = ", ".join(str(path) for path in self._files.paths())
            raise StartupError(
                f"cannot use TLS files {names}: {err}", "check that they exist, are PEM and belong together"
            ) from err
        return value

    def current(self) -> ValueT:
        """The value for what the files hold now, or the last that could be made."""
        with self._lock:
            if self._value is None:
                raise RuntimeError("current() before first()")
            now = time.monotonic()
            if now - self._looked < _LOOK_EVERY_S:
                return self._value
            self._looked = now
            stamp = self._read_stamp()
            if stamp != self._stamp:
                try:
                    self._value = self._make()
                    self._stamp = stamp
                except (OSError, ValueError) as err:
                    get_logger("tls").warning("certificate not reloaded", err=str(err))
                    self._not_reloaded()
            return self._value

    def _read_stamp(self) -> tuple[object, ...]:
        stamps: list[object] = []
        for path in self._files.paths():
            try:
                info = path.stat()
                stamps.append((info.st_mtime_ns, info.st_ino, info.st_size))
            except OSError:
                stamps.append(None)
        return tuple(stamps)
