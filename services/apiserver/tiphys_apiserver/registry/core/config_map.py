"""Config maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Source: pkg/apis/core, MaxSecretSize, which holds for both kinds.
MAX_SIZE_BYTES = 1024 * 1024
_FROZEN = "field is immutable when `immutable` is set"


class ConfigMapStrategy(Strategy):
    """The rules of config maps."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of keys and size."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same, and what was made immutable stays as it is."""
        errors = super().validate_update(ctx, new, old) + list(_faults(new))
        return errors + list(frozen_errors(new, old, ("data", "binaryData")))


def _faults(config_map: Any) -> Iterator[FieldError]:
    size = 0
    for key, value in config_map.data.items():
        yield from key_errors(key, "data")
        if key in config_map.binaryData:
            yield FieldError.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
        size += len(value.encode())
    for key, content in config_map.binaryData.items():
        yield from key_errors(key, "binaryData")
        size += len(content)
    if size > MAX_SIZE_BYTES:
        yield FieldError.too_long("", MAX_SIZE_BYTES)


def key_errors(key: str, path: str) -> Iterator[FieldError]:
    """Faults of a key that becomes the name of a file."""
    for why in validation.is_config_map_key(key):
        yield FieldError.invalid(f"{path}[{key}]", key, why)


def frozen_errors(new: Any, old: Any, fields: tuple[str, ...]) -> Iterator[FieldError]:
    """What changed though the old object said that it is immutable."""
    if not old.immutable:
        return
    if not new.immutable:
        yield FieldError.forbidden("immutable", _FROZEN)
    for name in fields:
        if dict(getattr(new, name)) != dict(getattr(old, name)):
            yield FieldError.forbidden(name, _FROZEN)
