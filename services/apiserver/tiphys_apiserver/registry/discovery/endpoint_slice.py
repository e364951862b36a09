"""Endpoint slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.endpoints import address_errors
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Source: pkg/apis/discovery/validation.
_MAX_ENDPOINTS = 1000
_MAX_ADDRESSES = 100
_MAX_PORTS = 20000


class EndpointSliceStrategy(Strategy):
    """The rules of endpoint slices."""

    allow_create_on_update = True

    def apply_defaults(self, obj: Message) -> None:
        """A port without name or protocol has the empty name and TCP."""
        super().apply_defaults(obj)
        made: Any = obj
        for port in made.ports:
            if not port.HasField("name"):
                port.name = ""
            if not port.HasField("protocol"):
                port.protocol = "TCP"

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """Generations count from one, though the kind has no spec."""
        super().prepare_for_create(ctx, obj)
        made: Any = obj
        made.metadata.generation = 1

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """One generation more where endpoints, ports or labels changed."""
        super().prepare_for_update(ctx, new, old)
        same = (
            list(new.endpoints) == list(old.endpoints)
            and list(new.ports) == list(old.ports)
            and new.metadata.labels == old.metadata.labels
        )
        new.metadata.generation = old.metadata.generation + (0 if same else 1)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of endpoints and ports."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed slice."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(made: Any) -> Iterator[FieldError]:
    if len(made.endpoints) > _MAX_ENDPOINTS:
        yield FieldError.too_many("endpoints", len(made.endpoints), _MAX_ENDPOINTS)
    for index, endpoint in enumerate(made.endpoints[:_MAX_ENDPOINTS]):
        path = f"endpoints[{index}].addresses"
        if not endpoint.addresses:
            yield FieldError.required(path, "must contain at least 1 address")
        elif len(endpoint.addresses) > _MAX_ADDRESSES:
            yield FieldError.too_many(path, len(endpoint.addresses), _MAX_ADDRESSES)
        for number, address in enumerate(endpoint.addresses):
            yield from _address(address, made.addressType, f"{path}[{number}]")
    if len(made.ports) > _MAX_PORTS:
        yield FieldError.too_many("ports", len(made.ports), _MAX_PORTS)
    names: set[str] = set()
    for index, port in enumerate(made.ports[:_MAX_PORTS]):
        if port.name in names:
            yield FieldError.duplicate(f"ports[{index}].name", port.name)
        names.add(port.name)


def _address(address: str, family: str, path: str) -> Iterator[FieldError]:
    if family == "FQDN":
        for why in validation.is_dns1123_subdomain(address.removesuffix(".")):
            yield FieldError.invalid(path, address, why)
        return
    faults = address_errors(address, path)
    yield from faults
    if not faults and ("IPv6" if ":" in address else "IPv4") != family:
        yield FieldError.invalid(path, address, f"must be an {family} address")
