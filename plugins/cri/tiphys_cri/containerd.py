"""containerd's own API, for what CRI can't do: importing images from a file.

An import writes the blobs into the content store under a lease, so that the collector leaves them alone, and then
names the image. Labels say which blob refers to which; the collector follows them. Layers are unpacked by containerd
when the first container is made from the image.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tiphys.thirdparty.containerd import content_pb2, images_pb2, leases_pb2, types_pb2
from tiphys.thirdparty.containerd.content_pb2_grpc import ContentStub
from tiphys.thirdparty.containerd.images_pb2_grpc import ImagesStub
from tiphys.thirdparty.containerd.leases_pb2_grpc import LeasesStub
from tiphys_component.proc import to_thread
from tiphys_cri.errors import CRIError, from_rpc_error
from tiphys_cri.events import CRI_NAMESPACE

Metadata = tuple[tuple[str, str], ...]

_CHUNK_BYTES = 1 << 20
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

# What refers to other blobs, and is read.
DOCUMENT_TYPES = INDEX_TYPES + MANIFEST_TYPES


class ImageFileError(CRIError):
    """The file is no image archive that can be imported."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One piece of content: where it lies in the archive, and the labels that keep what it refers to."""

    digest: str
    size: int
    member: str
    data: bytes | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What an archive holds: blobs, children before parents, and the names with what they point to."""

    blobs: tuple[Blob, ...]
    images: tuple[tuple[str, types_pb2.Descriptor], ...]


def read_image_file(path: Path) -> ImageFile:
    """Reads an OCI layout or a `docker save` archive. Blocks. Raises ImageFileError."""
    try:
        with tarfile.open(path) as archive:
            names = {name.removeprefix("./") for name in archive.getnames()}
            if "index.json" in names:
                return read_layout(json.loads(_read(archive, "index.json")), lambda member: _read(archive, member))
            if "manifest.json" in names:
                return _read_docker(archive)
    except (tarfile.TarError, OSError, ValueError, KeyError) as err:
        raise ImageFileError(f"{path}: can't be read as an image archive: {err}") from err
    raise ImageFileError(f"{path}: has neither index.json nor manifest.json, so it is no image archive")


def normalized_name(name: str) -> str:
    """The full form of an image name: docker.io/library/ before short ones, :latest behind those without a tag."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    last = name.rsplit("/", 1)[-1]
    return name if ":" in last or "@" in last else f"{name}:latest"


def _read(archive: tarfile.TarFile, member: str) -> bytes:
    for name in (member, f"./{member}"):
        try:
            stream = archive.extractfile(name)
        except KeyError:
            continue
        if stream is not None:
            return stream.read()
    raise KeyError(f"{member} is missing in the archive")


def blob_member(digest: str) -> str:
    """The file of an OCI layout that holds a blob."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def read_layout(index: Mapping[str, Any], read: Callable[[str], bytes]) -> ImageFile:
    """What an OCI layout holds, by its index; read gives a file of it, such as blobs/sha256/….

    Raises ValueError or KeyError where it is damaged, and what read raises.
    """
    blobs: dict[str, Blob] = {}
    images: list[tuple[str, types_pb2.Descriptor]] = []
    for entry in index.get("manifests", ()):
        _collect(read, entry, blobs)
        name = image_name(entry)
        if name:
            target = types_pb2.Descriptor(media_type=entry["mediaType"], digest=entry["digest"], size=entry["size"])
            images.append((name, target))
    if not images:
        raise ValueError("index.json names no image (annotation org.opencontainers.image.ref.name)")
    return ImageFile(tuple(blobs.values()), tuple(images))


def image_name(entry: Mapping[str, Any]) -> str:
    """The full name that an entry of an index gives an image; empty when it gives none."""
    annotations = entry.get("annotations") or {}
    name = next((annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)), "")
    return normalized_name(name) if name else ""


def children_of(media_type: str, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What an index or a manifest refers to."""
    if media_type in MANIFEST_TYPES:
        return [document["config"], *document["layers"]]
    return list(document.get("manifests") or [])


def _collect(read: Callable[[str], bytes], entry: Mapping[str, Any], blobs: dict[str, Blob]) -> None:
    digest, media_type = entry["digest"], entry["mediaType"]
    if digest in blobs:
        return
    member = blob_member(digest)
    if media_type not in DOCUMENT_TYPES:
        blobs[digest] = Blob(digest, entry["size"], member)
        return
    data = read(member)
    children = children_of(media_type, json.loads(data))
    if media_type in MANIFEST_TYPES:
        labels = {"containerd.io/gc.ref.content.config": children[0]["digest"]}
        labels |= {f"containerd.io/gc.ref.content.l.{i}": child["digest"] for i, child in enumerate(children[1:])}
    else:
        labels = {f"containerd.io/gc.ref.content.m.{i}": child["digest"] for i, child in enumerate(children)}
    for child in children:
        _collect(read, child, blobs)
    blobs[digest] = Blob(digest, len(data), member, data, labels)


def _read_docker(archive: tarfile.TarFile) -> ImageFile:
    blobs: dict[str, Blob] = {}
    images: list[tuple[str, types_pb2.Descriptor]] = []
    for image in json.loads(_read(archive, "manifest.json")):
        config = _read(archive, image["Config"])
        layers = []
        for member in image["Layers"]:
            data = _read(archive, member)
            packed = data[:2] == b"\x1f\x8b"
            kind = "application/vnd.docker.image.rootfs.diff.tar" + (".gzip" if packed else "")
            layers.append(_add(blobs, data, member, kind))
        described = _add(blobs, config, image["Config"], "application/vnd.docker.container.image.v1+json")
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST_TYPES[1], "config": described, "layers": layers}
        ).encode()
        labels = {"containerd.io/gc.ref.content.config": described["digest"]}
        labels |= {f"containerd.io/gc.ref.content.l.{i}": layer["digest"] for i, layer in enumerate(layers)}
        entry = _add(blobs, manifest, "", MANIFEST_TYPES[1], labels=labels, keep=True)
        target = types_pb2.Descriptor(media_type=entry["mediaType"], digest=entry["digest"], size=entry["size"])
        images.extend((normalized_name(name), target) for name in image.get("RepoTags") or ())
    return ImageFile(tuple(blobs.values()), tuple(images))


def _add(
    blobs: dict[str, Blob],
    data: bytes,
    member: str,
    media_type: str,
    *,
    labels: Mapping[str, str] | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    blobs[digest] = Blob(digest, len(data), member, data if keep else None, labels or {})
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


async def import_image(channel: grpc.aio.Channel, path: Path) -> list[str]:
    """Imports every image of the archive into the namespace of CRI; returns their names.

    Importing what is there already changes nothing. Raises ImageFileError, or CRIError if containerd refuses.
    """
    image_file = await to_thread(read_image_file, path)
    try:
        return await _import(channel, path, image_file)
    except grpc.aio.AioRpcError as err:
        raise from_rpc_error(err, "import image") from err


async def _import(channel: grpc.aio.Channel, path: Path, image_file: ImageFile) -> list[str]:
    async with import_lease(channel) as metadata:
        content = ContentStub(channel)
        archive = await to_thread(tarfile.open, path)
        try:
            for blob in image_file.blobs:
                await _write_blob(content, metadata, archive, blob)
        finally:
            archive.close()
        await name_images(channel, metadata, image_file)
    return [name for name, _ in image_file.images]


@contextlib.asynccontextmanager
async def import_lease(channel: grpc.aio.Channel) -> AsyncIterator[Metadata]:
    """The metadata of calls whose content the collector leaves alone until the end."""
    lease_id = f"tiphys-import-{uuid.uuid4()}"
    metadata = (("containerd-namespace", CRI_NAMESPACE), ("containerd-lease", lease_id))
    leases = LeasesStub(channel)
    await leases.Create(leases_pb2.CreateRequest(id=lease_id), metadata=metadata)
    try:
        yield metadata
    finally:
        await leases.Delete(leases_pb2.DeleteRequest(id=lease_id), metadata=metadata)


async def _write_blob(content: Any, metadata: Metadata, archive: tarfile.TarFile, blob: Blob) -> None:
    # Asked first: a write of what is there is refused while it is being sent, which gRPC reports as a fault of its own.
    if await has_blob(content, metadata, blob.digest):
        return
    data = blob.data if blob.data is not None else await to_thread(_read, archive, blob.member)
    await send_blob(content, metadata, blob, data)


async def send_blob(content: Any, metadata: Metadata, blob: Blob, data: bytes) -> None:
    """Writes a blob that is not there. Raises AioRpcError."""
    call = content.Write(_write_requests(blob, data), metadata=metadata)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError:
        if not await has_blob(content, metadata, blob.digest):
            raise


async def has_blob(content: Any, metadata: Metadata, digest: str) -> bool:
    """Whether containerd has the blob, in the namespace of CRI. Raises AioRpcError."""
    try:
        await content.Info(content_pb2.InfoRequest(digest=digest), metadata=metadata)
    except grpc.aio.AioRpcError as err:
        if err.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


async def _write_requests(blob: Blob, data: bytes) -> AsyncIterator[content_pb2.WriteContentRequest]:
    ref = f"tiphys-{blob.digest}"
    for at in _offsets(len(data)):
        chunk = data[at : at + _CHUNK_BYTES]
        last = at + len(chunk) >= len(data)
        yield content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT if last else content_pb2.WRITE,
            ref=ref,
            total=blob.size,
            expected=blob.digest,
            offset=at,
            data=chunk,
            labels=blob.labels if last else {},
        )


def _offsets(size: int) -> Iterable[int]:
    return range(0, max(size, 1), _CHUNK_BYTES)


async def name_images(channel: grpc.aio.Channel, metadata: Metadata, image_file: ImageFile) -> None:
    """Gives the images their names; their blobs are there. Raises AioRpcError."""
    images = ImagesStub(channel)
    for name, target in image_file.images:
        # The label is CRI's own mark of images that it takes care of.
        image = images_pb2.Image(name=name, target=target, labels={"io.cri-containerd.image": "managed"})
        try:
            await images.Create(images_pb2.CreateImageRequest(image=image), metadata=metadata)
        except grpc.aio.AioRpcError as err:
            if err.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            await images.Update(images_pb2.UpdateImageRequest(image=image), metadata=metadata)
