"""Ingresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_ILLEGAL = ("//", "/./", "/../", "%2f", "%2F")
_ILLEGAL_ENDS = ("/..", "/.")


class IngressStrategy(Strategy):
    """The rules of ingresses."""

    allow_create_on_update = False

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of rules and backends."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed ingress."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(ingress: Any) -> Iterator[FieldError]:
    spec = ingress.spec
    if not spec.rules and not spec.HasField("defaultBackend"):
        yield FieldError.invalid("spec", [], "either `defaultBackend` or `rules` must be specified")
    if spec.HasField("defaultBackend"):
        yield from _backend(spec.defaultBackend, "spec.defaultBackend")
    for index, rule in enumerate(spec.rules):
        path = f"spec.rules[{index}]"
        yield from _host(rule.host, f"{path}.host")
        # http is inlined in JSON but a message of its own in the schema.
        for number, item in enumerate(rule.ingressRuleValue.http.paths):
            yield from _path(item, f"{path}.http.paths[{number}]")
    for index, tls in enumerate(spec.tls):
        for number, host in enumerate(tls.hosts):
            yield from _host(host, f"spec.tls[{index}].hosts[{number}]")


def _host(host: str, path: str) -> Iterator[FieldError]:
    if not host:
        return
    if not validation.is_ip(host):
        yield FieldError.invalid(path, host, "must be a DNS name, not an IP address")
        return
    check = validation.is_wildcard_dns1123_subdomain if host.startswith("*") else validation.is_dns1123_subdomain
    for why in check(host):
        yield FieldError.invalid(path, host, why)


def _path(item: Any, path: str) -> Iterator[FieldError]:
    if not item.HasField("pathType"):
        yield FieldError.required(f"{path}.pathType", "pathType must be specified")
    elif item.pathType in ("Exact", "Prefix"):
        if not item.path.startswith("/"):
            yield FieldError.invalid(f"{path}.path", item.path, "must be an absolute path")
        for part in _ILLEGAL:
            if part in item.path:
                yield FieldError.invalid(f"{path}.path", item.path, f"must not contain '{part}'")
        for end in _ILLEGAL_ENDS:
            if item.path.endswith(end):
                yield FieldError.invalid(f"{path}.path", item.path, f"cannot end with '{end}'")
    elif item.pathType not in _PATH_TYPES:
        yield FieldError.not_supported(f"{path}.pathType", item.pathType, _PATH_TYPES)
    elif item.path and not item.path.startswith("/"):
        yield FieldError.invalid(f"{path}.path", item.path, "must be an absolute path")
    yield from _backend(item.backend, f"{path}.backend")


def _backend(backend: Any, path: str) -> Iterator[FieldError]:
    has_service, has_resource = backend.HasField("service"), backend.HasField("resource")
    if has_service and has_resource:
        yield FieldError.invalid(path, "", "cannot set both resource and service backends")
        return
    if has_resource:
        return
    if not has_service:
        yield FieldError.required(path, "resource or service backend is required")
        return
    service = backend.service
    if not service.name:
        yield FieldError.required(f"{path}.service.name")
    else:
        for why in validation.is_dns1035_label(service.name):
            yield FieldError.invalid(f"{path}.service.name", service.name, why)
    name, number = service.port.name, service.port.number
    where = f"{path}.service.port"
    if name and number:
        yield FieldError.invalid(where, "", "cannot set both port name & port number")
    elif name:
        for why in validation.is_port_name(name):
            yield FieldError.invalid(f"{where}.name", name, why)
    elif not number:
        yield FieldError.required(where, "port name or number is required")
    elif not 1 <= number <= 65535:
        yield FieldError.invalid(f"{where}.number", number, "must be between 1 and 65535, inclusive")
