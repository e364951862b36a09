"""Secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.config_map import MAX_SIZE_BYTES, frozen_errors, key_errors
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
_HIDDEN = "<secret contents redacted>"
# Keys that a type of secret must have.
_REQUIRED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_JSON_KEYS = (".dockercfg", ".dockerconfigjson")


class SecretStrategy(Strategy):
    """The rules of secrets."""

    def apply_defaults(self, obj: Message) -> None:
        """stringData is a way to write data, and is not kept."""
        secret: Any = obj
        for key, value in secret.stringData.items():
            secret.data[key] = value.encode()
        secret.ClearField("stringData")
        super().apply_defaults(obj)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of keys, size, and what the type asks for."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """A manifest that leaves the type open means the one it has."""
        super().prepare_for_update(ctx, new, old)
        if not new.type:
            new.type = old.type

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same, and what was made immutable stays as it is."""
        errors = super().validate_update(ctx, new, old) + list(_faults(new))
        return errors + list(frozen_errors(new, old, ("data",)))


def _faults(secret: Any) -> Iterator[FieldError]:
    for key in secret.data:
        yield from key_errors(key, "data")
    if sum(len(content) for content in secret.data.values()) > MAX_SIZE_BYTES:
        yield FieldError.too_long("data", MAX_SIZE_BYTES)
    is_token = secret.type == "kubernetes.io/service-account-token"
    if is_token and not secret.metadata.annotations.get(_ACCOUNT_ANNOTATION, ""):
        yield FieldError.required(f"metadata.annotations[{_ACCOUNT_ANNOTATION}]")
    is_basic = secret.type == "kubernetes.io/basic-auth"
    if is_basic and "username" not in secret.data and "password" not in secret.data:
        yield FieldError.required("data[username]")
        yield FieldError.required("data[password]")
    for key in _REQUIRED_KEYS.get(secret.type, ()):
        if key not in secret.data:
            yield FieldError.required(f"data[{key}]")
        elif key in _JSON_KEYS:
            try:
                orjson.loads(secret.data[key])
            except orjson.JSONDecodeError as err:
                yield FieldError.invalid(f"data[{key}]", _HIDDEN, err.msg)
