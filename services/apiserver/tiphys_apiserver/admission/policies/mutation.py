"""What the expressions of mutating policies make of an object: merged as apply merges, or patched. Pure, over JSON.

Source: apiserver pkg/admission/plugin/policy/mutating/patch.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping
from typing import Any, Final

from tiphys_apimachinery.cel.library.standard import duration_text, timestamp_text
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import ObjectValue, Optional, type_name
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.patch import apply, json_patch
from tiphys_apimachinery.patch.typed import Shape
from tiphys_apimachinery.quantity import Quantity

JSON = dict[str, Any]
_ROOT: Final = "Object"
_PATCH: Final = "JSONPatch"
_OPERATION: Final = frozenset({"op", "path", "from", "value"})


def merged(live: JSON, value: Any, shape: Shape) -> JSON:
    """The object with the applied configuration in it. Raises CelError for what can't be merged."""
    if not isinstance(value, ObjectValue):
        raise CelError(f"must evaluate to {_ROOT} but got {type_name(value)}")
    config: JSON = _typed(value, _ROOT)
    for name in ("apiVersion", "kind"):
        if config.get(name, live.get(name)) != live.get(name):
            raise CelError(f"may not change {name}")
    _refuse_atomic(config, shape, "")
    try:
        apply.fields_of(config, shape)
    except APIError as err:
        raise CelError(str(err)) from err
    found: JSON = apply.merge(live, config, shape)
    return found


def patched(live: JSON, value: Any) -> JSON:
    """The object after the operations. Raises CelError for what is no patch, or does not fit the object."""
    if not isinstance(value, list):
        raise CelError(f"type mismatch: JSONPatchType.expression should evaluate to array, got {type_name(value)}")
    operations = [_operation(item) for item in value]
    try:
        found = json_patch.apply_patch(live, operations)
    except APIError as err:
        raise CelError(f"JSON Patch: {err}") from err
    if not isinstance(found, dict):
        raise CelError("JSON Patch: leaves no object")
    return found


def to_json(value: Any) -> Any:
    """A value as JSON. Raises CelError for one that has no such form."""
    if isinstance(value, Mapping):
        return {str(name): to_json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [to_json(part) for part in value]
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return timestamp_text(value)
    if isinstance(value, datetime.timedelta):
        return duration_text(value)
    if isinstance(value, Quantity):
        return str(value)
    if isinstance(value, Optional) and value.is_there:
        return to_json(value.value)
    raise CelError(f"{type_name(value)} has no form in JSON")


def _typed(value: Any, name: str) -> Any:
    """The same for an applied object, whose parts must be of the types that their places have."""
    if isinstance(value, ObjectValue):
        if value.type_name != name:
            where = name.removeprefix(_ROOT) or "."
            raise CelError(
                f'unexpected type name "{value.type_name}", expected "{name}", which matches field path {where}'
            )
        return {field: _typed(part, f"{name}.{field}") for field, part in value.items()}
    if isinstance(value, Mapping):
        return {str(field): _typed(part, f"{name}.{field}") for field, part in value.items()}
    if isinstance(value, list):
        return [_typed(part, name) for part in value]
    return to_json(value)


def _refuse_atomic(value: Any, shape: Shape, path: str) -> None:
    """Raises CelError for a list, map or struct that has one owner: merging would put it in place of the whole."""
    is_whole = isinstance(value, list) and not shape.is_list
    if is_whole or (isinstance(value, dict) and shape.is_leaf):
        raise CelError(f"may not mutate atomic arrays, maps or structs: {path}")
    if isinstance(value, dict):
        for name, part in value.items():
            _refuse_atomic(part, shape.member(name), f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                _refuse_atomic(item, shape.item, path)


def _operation(item: Any) -> JSON:
    if not isinstance(item, ObjectValue) or item.type_name != _PATCH:
        raise CelError(
            f"type mismatch: JSONPatchType.expression should evaluate to array of {_PATCH}, got {type_name(item)}"
        )
    unknown = sorted(item.keys() - _OPERATION)
    if unknown:
        raise CelError(f"{_PATCH} has no field {unknown[0]}")
    for name in ("op", "path"):
        if not isinstance(item.get(name), str):
            raise CelError(f"{_PATCH}.{name} must be a string")
    return {name: to_json(part) for name, part in item.items()}
