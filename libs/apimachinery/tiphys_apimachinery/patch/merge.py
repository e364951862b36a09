"""JSON merge patch, RFC 7386."""

from __future__ import annotations

from typing import Any

from tiphys_apimachinery.errors import BadRequest


def apply_patch(target: Any, patch: Any) -> Any:
    """The target with the patch merged in: null removes, objects merge, all else replaces.

    Neither argument is changed; the result shares the parts of both that stayed as they were.
    Raises BadRequest for nesting without end.
    """
    try:
        return _merge(target, patch)
    except RecursionError as error:
        raise BadRequest("the patch is nested too deep") from error


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result: dict[str, Any] = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result


def create_patch(before: Any, after: Any) -> Any:
    """The smallest merge patch that turns before into after; both are objects.

    A null inside `after` can't be told from a removal, which is a limit of the format.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before:
            patch[name] = value
        elif before[name] != value or type(before[name]) is not type(value):
            patch[name] = create_patch(before[name], value)
    return patch
