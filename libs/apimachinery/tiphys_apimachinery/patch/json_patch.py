"""JSON patch, RFC 6902, by the jsonpatch library, with the errors of the API and a limit on copying."""

from __future__ import annotations

from typing import Any, Final

import jsonpatch
import jsonpointer
import orjson

from tiphys_apimachinery.errors import BadRequest, Invalid, RequestEntityTooLarge

# Bytes that all copy operations of one patch may add; a few copies of copies would fill the memory.
_MAX_COPIED: Final = 3 * 1024 * 1024


def apply_patch(target: Any, operations: Any) -> Any:
    """The target after all operations; on any failure nothing is changed. The arguments are not touched.

    Raises BadRequest for what is no JSON patch, Invalid where an operation does not fit the target
    or a test fails, RequestEntityTooLarge when copies pass 3 MiB.
    """
    if not isinstance(operations, list):
        raise BadRequest("error decoding patch: a JSON patch is a list of operations")
    document = orjson.loads(orjson.dumps(target))
    copied = 0
    for index, operation in enumerate(operations):
        _check_shape(index, operation)
        if operation["op"] == "copy":
            copied += _size_of_source(document, index, operation)
            if copied > _MAX_COPIED:
                raise RequestEntityTooLarge.of(f"copies of the JSON patch pass {_MAX_COPIED} bytes")
        document = _apply_one(document, index, operation)
    return document


def _check_shape(index: int, operation: Any) -> None:
    if not isinstance(operation, dict) or not isinstance(operation.get("op"), str):
        raise BadRequest(f"error decoding patch: operation {index} has no op")
    name = operation["op"]
    if name not in ("add", "remove", "replace", "move", "copy", "test"):
        raise BadRequest(f"error decoding patch: operation {index}: unexpected kind: {name}")
    needed = ["path", "from"] if name in ("move", "copy") else ["path"]
    for member in needed:
        if not isinstance(operation.get(member), str):
            raise BadRequest(f"error decoding patch: operation {index}: {name} needs {member}")
    if name in ("add", "replace", "test") and "value" not in operation:
        raise BadRequest(f"error decoding patch: operation {index}: {name} needs value")


def _size_of_source(document: Any, index: int, operation: dict[str, Any]) -> int:
    try:
        return len(orjson.dumps(jsonpointer.resolve_pointer(document, operation["from"])))
    except jsonpointer.JsonPointerException as error:
        raise _does_not_fit(index, operation, error) from error


def _apply_one(document: Any, index: int, operation: dict[str, Any]) -> Any:
    try:
        return jsonpatch.JsonPatch([operation]).apply(document, in_place=True)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError, IndexError) as error:
        # The library lets Python's own errors through where a path leads into a number or text.
        raise _does_not_fit(index, operation, error) from error


def _does_not_fit(index: int, operation: dict[str, Any], error: Exception) -> Invalid:
    what = f"operation {index} ({operation['op']} {operation['path']})"
    reason = "testing value failed" if isinstance(error, jsonpatch.JsonPatchTestFailed) else str(error)
    return Invalid(f"the server rejected our request due to an error in our request: {what}: {reason}")
