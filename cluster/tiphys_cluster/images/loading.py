"""Puts images into a node's containerd, through containerd's own API, and remembers which it has."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from tiphys_cluster.errors import ClusterError
from tiphys_cluster.layout import NodeLayout
from tiphys_cluster.settings import write_atomic


async def ensure_images(node: NodeLayout, archives: Sequence[Path]) -> list[str]:
    """Have the built-in images on a node; the names of those that had to be loaded. Raises ClusterError."""
    known = _read_known(node)
    missing = [path for path in archives if path.name not in known]
    names = [name for path in missing for name in await load_image(node, path)]
    if missing:
        write_atomic(node.imported_images, json.dumps(sorted(path.name for path in archives)), mode=0o644)
    return names


def _read_known(node: NodeLayout) -> set[str]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return set(json.loads(node.imported_images.read_text()))
    return set()


async def load_image(node: NodeLayout, path: Path) -> list[str]:
    """Import an image archive (OCI layout or `docker save`) into a node; the images' names. Raises ClusterError."""
    # grpc is loaded only when there is something to import: a second start has nothing.
    from tiphys_cri.containerd import import_image
    from tiphys_cri.endpoint import channel
    from tiphys_cri.errors import CRIError

    try:
        async with channel(f"unix://{node.containerd_socket}") as connection:
            return await import_image(connection, path)
    except CRIError as err:
        raise ClusterError(
            f"cannot import {path}: {err}", "It must be an OCI layout or a `docker save` archive."
        ) from err
