"""Where the runtime listens, and the channel to it."""

from __future__ import annotations

import grpc
import grpc.aio

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def socket_target(endpoint: str) -> str:
    """The gRPC target of an endpoint as Kubernetes writes it: unix:///run/x.sock, a bare path, or tcp://host:port.

    Raises ValueError for another scheme or an empty endpoint.
    """
    if endpoint.startswith("/"):
        return f"unix:{endpoint}"
    scheme, separator, rest = endpoint.partition("://")
    if separator and rest and scheme == "unix":
        return f"unix:{rest}"
    if separator and rest and scheme == "tcp":
        return rest
    raise ValueError(f"runtime endpoint {endpoint!r} is neither a path nor unix:// nor tcp://")


def channel(endpoint: str) -> grpc.aio.Channel:
    """A channel to the runtime; connects when first used, and again when the runtime comes back."""
    options = [
        # containerd refuses the authority that gRPC derives from a socket's path.
        ("grpc.default_authority", "localhost"),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A runtime that restarts is back within a second; the default would wait up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    return grpc.aio.insecure_channel(socket_target(endpoint), options=options)
