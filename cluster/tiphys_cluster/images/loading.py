"""Puts images into nodes: once into the cluster's pool, and from there, by links, into each node's containerd.

What a node was given is noted beside its containerd's data. So a start that has nothing to give need not even load
the client, and an image that somebody removed from a node does not come back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tiphys_cluster.errors import ClusterError, first_error
from tiphys_cluster.layout import NodeLayout
from tiphys_cluster.settings import write_atomic
from tiphys_component.proc import to_thread


@dataclass(frozen=True, slots=True)
class Given:
    """What a node was given: the pool's index, by its hash, when it was last looked at, and names with digests."""

    index: str = ""
    images: dict[str, str] = field(default_factory=dict)


def fill_pool(pool: Path, archives: Sequence[Path]) -> None:
    """Have the built-in images in the pool, from their archives. Blocks; raises ClusterError."""
    names = [path.name for path in archives]
    noted = pool / "builtin.json"
    with contextlib.suppress(OSError, ValueError):
        if json.loads(noted.read_text()) == names:
            return
    for path in archives:
        _add(pool, path, pinned=True)
    write_atomic(noted, json.dumps(names))


def _add(pool: Path, archive: Path, *, pinned: bool = False) -> list[str]:
    from tiphys_cri.errors import CRIError
    from tiphys_cri.image_pool import ImagePool

    try:
        return ImagePool(pool).add(archive, pinned=pinned)
    except CRIError as err:
        raise ClusterError(
            f"cannot import {archive}: {err}", "It must be an OCI layout or a `docker save` archive."
        ) from err


async def ensure_images(pool: Path, node: NodeLayout, *, again: Collection[str] = ()) -> list[str]:
    """Have the pool's images on a node, whose containerd serves; the names of those that it was given now.

    again names images that the node gets also if it was given them before. Raises ClusterError.
    """
    index, given = hashlib.sha256((pool / "index.json").read_bytes()).hexdigest(), _read_given(node)
    if given.index == index and not again:
        return []
    # grpc is loaded only when there is something to give: a second start has nothing.
    from tiphys_cri.endpoint import channel
    from tiphys_cri.errors import CRIError
    from tiphys_cri.image_pool import ImagePool
    from tiphys_cri.image_sharing import share_images

    images = await to_thread(ImagePool(pool).images)
    missing = [name for name, digest in images.items() if name in again or given.images.get(name) != digest]
    try:
        if missing:
            async with channel(f"unix://{node.containerd_socket}") as connection:
                await share_images(connection, ImagePool(pool), missing, node.containerd_root)
    except CRIError as err:
        raise ClusterError(f"cannot load images into {node.containerd_socket}: {err}", "See containerd's log.") from err
    write_atomic(node.imported_images, json.dumps(asdict(Given(index, images))), mode=0o644)
    return missing


async def load_images(pool: Path, nodes: Iterable[NodeLayout], archive: Path) -> list[str]:
    """Import an archive (OCI layout or `docker save`) once, and have its images on all nodes; their names.

    Raises ClusterError.
    """
    from tiphys_cri.image_pool import ImagePool

    names = await to_thread(_add, pool, archive)
    try:
        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(ensure_images(pool, node, again=names), name=f"images of {node.home.name}")
    except BaseExceptionGroup as group:
        raise first_error(group) from group
    await to_thread(ImagePool(pool).prune, time.time())
    return names


def _read_given(node: NodeLayout) -> Given:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Given(**json.loads(node.imported_images.read_text()))
    return Given()
