"""Names that need only fit into one part of a path."""

from __future__ import annotations


def path_segment_errors(name: str) -> list[str]:
    """What is wrong with a name that may be any text but for path separators.

    Source: apimachinery pkg/api/validation/path.
    """
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{illegal}'" for illegal in ("/", "%") if illegal in name]
