"""Endpoints."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Some 100 bytes each.
_MOST_ADDRESSES: Final = 16_384


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


def address_errors(text: str, path: str) -> list[FieldError]:
    """Faults of the address of an endpoint: it must be one that another machine can reach."""
    return [FieldError.invalid(path, text, why) for why in _address_faults(text)]


# The same addresses come with every change of a Service's endpoints, in Endpoints and in slices.
@functools.lru_cache(maxsize=_MOST_ADDRESSES)
def _address_faults(text: str) -> tuple[str, ...]:
    faults = tuple(validation.is_ip(text))
    if faults:
        return faults
    address = ipaddress.ip_address(text)
    is_link_multicast = (address.version == 4 and text.startswith("224.0.0.")) or text.startswith("ff02:")
    judged = (
        (address.is_unspecified, f"may not be unspecified ({text})"),
        (address.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (address.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            address.is_multicast and is_link_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    )
    return tuple(why for is_so, why in judged if is_so)
