"""Brings images of a pool into a containerd on the same machine: by links, without reading a byte.

containerd's metadata store, which by default shares content between its namespaces, takes a blob that lies in its
content store already as it is: a write that begins at the blob's end is committed at once (metadata/content.go, the
writer without a backend). So an image of any size is there after one link and one call for each blob. Where no link
can be made, because the content store is on another file system, or containerd shares no content, bytes are sent.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tiphys.thirdparty.containerd import content_pb2
from tiphys.thirdparty.containerd.content_pb2_grpc import ContentStub
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_cri.containerd import Blob, Metadata, has_blob, import_lease, name_images, send_blob
from tiphys_cri.errors import from_rpc_error
from tiphys_cri.image_pool import ImagePool

_CONTENT = Path("io.containerd.content.v1.content", "blobs", "sha256")
_log = get_logger("cri.image_sharing")


async def share_images(channel: grpc.aio.Channel, pool: ImagePool, names: Iterable[str], root: Path) -> list[str]:
    """Have these images of the pool in the containerd behind the channel, whose root directory that is; their names.

    What is there already stays. Raises ImageFileError where the pool is damaged, CRIError if containerd refuses.
    """
    image_file = await to_thread(pool.read, list(names))
    store = root / _CONTENT
    try:
        async with import_lease(channel) as metadata:
            content = ContentStub(channel)
            for blob in image_file.blobs:
                await _have_blob(content, metadata, blob, kept=pool.path(blob.digest), store=store)
            await name_images(channel, metadata, image_file)
    except grpc.aio.AioRpcError as err:
        raise from_rpc_error(err, "share image") from err
    return [name for name, _ in image_file.images]


async def _have_blob(content: Any, metadata: Metadata, blob: Blob, *, kept: Path, store: Path) -> None:
    if _link(kept, store) and await _adopt(content, metadata, blob):
        return
    if not await has_blob(content, metadata, blob.digest):
        _log.info("blob is sent, as it can't be linked", digest=blob.digest, size=blob.size)
        await send_blob(content, metadata, blob, await to_thread(kept.read_bytes))


def _link(kept: Path, store: Path) -> bool:
    """Whether the blob lies in the content store now."""
    target = store / kept.name
    if target.exists():
        return True
    try:
        store.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(kept, target)
    except OSError as err:
        _log.debug("no link", path=str(target), err=str(err))
        return False
    return True


async def _adopt(content: Any, metadata: Metadata, blob: Blob) -> bool:
    """Tell containerd of a blob that lies in its content store; whether it has it now."""
    call = content.Write(_commit_at_end(blob), metadata=metadata)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as err:
        # Refused at this offset (OUT_OF_RANGE): it shares no content, or has just collected the blob.
        return err.code() is grpc.StatusCode.ALREADY_EXISTS
    return True


async def _commit_at_end(blob: Blob) -> AsyncIterator[content_pb2.WriteContentRequest]:
    yield content_pb2.WriteContentRequest(
        action=content_pb2.COMMIT,
        ref=f"tiphys-{blob.digest}",
        total=blob.size,
        expected=blob.digest,
        offset=blob.size,
        labels=blob.labels,
    )
