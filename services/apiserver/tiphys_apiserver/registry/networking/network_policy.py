"""Network policies."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.scheduling_validation import validate_label_selector
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class NetworkPolicyStrategy(Strategy):
    """The rules of network policies."""

    def apply_defaults(self, obj: Message) -> None:
        """A policy is about ingress, and about egress where it has rules for it."""
        super().apply_defaults(obj)
        policy: Any = obj
        if not policy.spec.policyTypes:
            policy.spec.policyTypes.append("Ingress")
            if policy.spec.egress:
                policy.spec.policyTypes.append("Egress")

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of selectors, peers and ports."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed policy."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(policy: Any) -> Iterator[FieldError]:
    spec = policy.spec
    yield from validate_label_selector(spec.podSelector, "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(getattr(spec, direction)):
            path = f"spec.{direction}[{index}]"
            for number, port in enumerate(rule.ports):
                yield from _port(port, f"{path}.ports[{number}]")
            for number, peer in enumerate(getattr(rule, peers)):
                yield from _peer(peer, f"{path}.{peers}[{number}]")


def _port(port: Any, path: str) -> Iterator[FieldError]:
    if port.HasField("port"):
        if port.port.type == 1:
            for why in validation.is_port_name(port.port.strVal):
                yield FieldError.invalid(f"{path}.port", port.port.strVal, why)
        elif not 1 <= port.port.intVal <= 65535:
            yield FieldError.invalid(f"{path}.port", port.port.intVal, "must be between 1 and 65535, inclusive")
    if not port.HasField("endPort"):
        return
    if not port.HasField("port"):
        yield FieldError.required(f"{path}.endPort", "`port` must be specified when `endPort` is specified")
    elif port.port.type == 1:
        yield FieldError.invalid(f"{path}.endPort", port.endPort, "may not be specified when `port` is non-numeric")
    elif port.endPort < port.port.intVal:
        yield FieldError.invalid(f"{path}.endPort", port.endPort, "must be greater than or equal to `port`")


def _peer(peer: Any, path: str) -> Iterator[FieldError]:
    selectors = [name for name in ("podSelector", "namespaceSelector") if peer.HasField(name)]
    for name in selectors:
        yield from validate_label_selector(getattr(peer, name), f"{path}.{name}")
    if peer.HasField("ipBlock"):
        if selectors:
            yield FieldError.forbidden(path, "may not specify both ipBlock and another peer")
        yield from _block(peer.ipBlock, f"{path}.ipBlock")
    elif not selectors:
        yield FieldError.required(path, "must specify a peer")


def _block(block: Any, path: str) -> Iterator[FieldError]:
    faults = validation.is_cidr(block.cidr)
    for why in faults:
        yield FieldError.invalid(f"{path}.cidr", block.cidr, why)
    if faults:
        return
    network = ipaddress.ip_network(block.cidr, strict=False)
    for index, text in enumerate(getattr(block, "except")):
        where = f"{path}.except[{index}]"
        inner_faults = validation.is_cidr(text)
        for why in inner_faults:
            yield FieldError.invalid(where, text, why)
        if inner_faults:
            continue
        inner = ipaddress.ip_network(text, strict=False)
        inside = inner.version == network.version and inner != network
        if not inside or not _contains(network, inner):
            yield FieldError.invalid(where, text, "must be a strict subset of `cidr`")


def _contains(outer: Any, inner: Any) -> bool:
    return bool(inner.subnet_of(outer))
