"""Endpoints."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class EndpointsStrategy(Strategy):
    """The rules of endpoints."""

    allow_create_on_update = True

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of addresses and ports."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed object."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(endpoints: Any) -> Iterator[FieldError]:
    for index, subset in enumerate(endpoints.subsets):
        path = f"subsets[{index}]"
        if not subset.addresses and not subset.notReadyAddresses:
            yield FieldError.required(path, "must specify `addresses` or `notReadyAddresses`")
        for name in ("addresses", "notReadyAddresses"):
            for number, address in enumerate(getattr(subset, name)):
                yield from address_errors(address.ip, f"{path}.{name}[{number}].ip")
        for number, port in enumerate(subset.ports):
            where = f"{path}.ports[{number}]"
            if not port.name and len(subset.ports) > 1:
                yield FieldError.required(f"{where}.name")
            elif port.name:
                for why in validation.is_dns1123_label(port.name):
                    yield FieldError.invalid(f"{where}.name", port.name, why)


def address_errors(text: str, path: str) -> Iterator[FieldError]:
    """Faults of the address of an endpoint: it must be one that another machine can reach."""
    faults = validation.is_ip(text)
    for why in faults:
        yield FieldError.invalid(path, text, why)
    if faults:
        return
    address = ipaddress.ip_address(text)
    if address.is_unspecified:
        yield FieldError.invalid(path, text, f"may not be unspecified ({text})")
    if address.is_loopback:
        yield FieldError.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address.is_link_local:
        yield FieldError.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if address.is_multicast and ((address.version == 4 and text.startswith("224.0.0.")) or text.startswith("ff02:")):
        yield FieldError.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
