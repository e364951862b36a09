"""Images that several containerds on one machine share: each blob is one file, linked into every content store.

The pool is a directory in OCI layout. Whoever links its blobs relies on them, so a blob is hashed while it is copied
in, and gets its name only if the digest is right. An image that was removed on every node has no link left, and is
dropped from the pool too; pinned ones stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from tiphys_cri.containerd import (
    DOCUMENT_TYPES,
    MANIFEST_TYPES,
    ImageFile,
    ImageFileError,
    blob_member,
    children_of,
    image_name,
    normalized_name,
    read_layout,
)

NAME = "io.containerd.image.name"
PINNED = "dev.tiphys.image.pinned"
_COPY_BYTES = 1 << 20
_NEW_S = 600.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DOCKER = "application/vnd.docker."
_GZIP_MAGIC = b"\x1f\x8b"
_LAYOUT = {"imageLayoutVersion": "1.0.0"}


class ImagePool:
    """The pool in a directory. Its methods block; processes that change it take turns by a lock on the directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"

    def path(self, digest: str) -> Path:
        """Where a blob lies. Raises ValueError for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is no sha256 digest")
        return self._blobs / digest.removeprefix("sha256:")

    def images(self) -> dict[str, str]:
        """The names of the images, each with its digest."""
        return {entry["annotations"][NAME]: entry["digest"] for entry in self._index()}

    def add(self, archive: Path, *, pinned: bool = False) -> list[str]:
        """Take in an OCI layout or a `docker save` archive; the images' names. Raises ImageFileError."""
        with self._locked():
            try:
                with tarfile.open(archive) as file:
                    entries = _Unpacker(self, file).unpack()
            except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as err:
                raise ImageFileError(f"{archive}: can't be read as an image archive: {err}") from err
            if pinned:
                entries = [{**entry, "annotations": {**entry["annotations"], PINNED: "true"}} for entry in entries]
            names = [str(entry["annotations"][NAME]) for entry in entries]
            kept = [entry for entry in self._index() if entry["annotations"][NAME] not in names]
            self._write_index([*kept, *entries])
        return names

    def read(self, names: Iterable[str]) -> ImageFile:
        """These images and their blobs, children before parents. Raises ImageFileError where one is damaged."""
        wanted = set(names)
        entries = [entry for entry in self._index() if entry["annotations"][NAME] in wanted]
        try:
            return read_layout({"manifests": entries}, lambda member: (self._root / member).read_bytes())
        except (OSError, ValueError, KeyError) as err:
            raise ImageFileError(f"{self._root}: damaged: {err}") from err

    def prune(self, now: float) -> list[str]:
        """Drop images that no content store has a link to, and blobs of no image; the names of the images.

        now is in seconds since 1970. What came in the last ten minutes may be about to be linked, and stays.
        """
        with self._locked():
            index = self._index()
            dropped = [entry for entry in index if not self._is_used(entry, now)]
            kept = [entry for entry in index if entry not in dropped]
            self._write_index(kept)
            blobs = self.read(entry["annotations"][NAME] for entry in kept).blobs if kept else ()
            wanted = {self.path(blob.digest) for blob in blobs}
            for path in self._blobs.iterdir():
                if path not in wanted and not _is_new(path.stat(), now):
                    path.unlink()
        return [entry["annotations"][NAME] for entry in dropped]

    def _is_used(self, entry: Mapping[str, Any], now: float) -> bool:
        if PINNED in entry["annotations"]:
            return True
        try:
            info = self.path(entry["digest"]).stat()
        except FileNotFoundError:
            return False
        return info.st_nlink > 1 or _is_new(info, now)

    def store(self, stream: IO[bytes], expected: str = "") -> tuple[str, int]:
        """Keep a blob; its digest and size. Raises ImageFileError where it is not the one expected."""
        digest, size = hashlib.sha256(), 0
        self._blobs.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._root, prefix=".blob-", delete=False) as part:
            try:
                while chunk := stream.read(_COPY_BYTES):
                    digest.update(chunk)
                    part.write(chunk)
                    size += len(chunk)
                found = f"sha256:{digest.hexdigest()}"
                if expected and found != expected:
                    raise ImageFileError(f"a blob is {found}, and the archive calls it {expected}")
                part.flush()
                os.fchmod(part.fileno(), 0o444)
                if self.has(found, size):
                    # The one that content stores have links to.
                    Path(part.name).unlink()
                else:
                    Path(part.name).rename(self.path(found))
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
        return found, size

    def has(self, digest: str, size: int) -> bool:
        """Whether the blob is there, whole; from now on it counts as new."""
        path = self.path(digest)
        try:
            if path.stat().st_size != size:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _index(self) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = json.loads((self._root / "index.json").read_text())["manifests"]
        except (FileNotFoundError, ValueError, KeyError):
            return []
        return found

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        (self._root / "oci-layout").write_text(json.dumps(_LAYOUT))
        part = self._root / ".index.json"
        part.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        part.replace(self._root / "index.json")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._blobs.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _is_new(info: os.stat_result, now: float) -> bool:
    return info.st_mtime > now - _NEW_S


class _Unpacker:
    """Takes the blobs of one archive into the pool."""

    def __init__(self, pool: ImagePool, archive: tarfile.TarFile) -> None:
        self._pool = pool
        self._archive = archive
        self._members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
        self._layers: dict[str, dict[str, Any]] = {}

    def unpack(self) -> list[dict[str, Any]]:
        """The entries of the pool's index for the images of the archive."""
        if "index.json" in self._members:
            return self._unpack_layout()
        if "manifest.json" in self._members:
            return self._unpack_docker()
        raise ValueError("it has neither index.json nor manifest.json")

    def _open(self, member: str) -> IO[bytes]:
        stream = self._archive.extractfile(self._members[member]) if member in self._members else None
        if stream is None:
            raise KeyError(f"{member} is missing in the archive")
        return stream

    def _unpack_layout(self) -> list[dict[str, Any]]:
        entries = [entry for entry in json.load(self._open("index.json")).get("manifests", ()) if image_name(entry)]
        if not entries:
            raise ValueError("index.json names no image (annotation org.opencontainers.image.ref.name)")
        for entry in entries:
            self._take(entry)
        return [_entry(image_name(entry), entry) for entry in entries]

    def _take(self, described: Mapping[str, Any]) -> None:
        digest = described["digest"]
        if not self._pool.has(digest, described["size"]):
            _, size = self._pool.store(self._open(blob_member(digest)), digest)
            if size != described["size"]:
                raise ValueError(f"{digest} has {size} bytes, and the archive says {described['size']}")
        if described["mediaType"] in DOCUMENT_TYPES:
            document = json.loads(self._pool.path(digest).read_bytes())
            for child in children_of(described["mediaType"], document):
                self._take(child)

    def _unpack_docker(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for image in json.load(self._open("manifest.json")):
            config = self._store(self._open(image["Config"]), f"{_DOCKER}container.image.v1+json")
            layers = [self._take_layer(member) for member in image["Layers"]]
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPES[1], "config": config, "layers": layers}
            described = self._store(BytesIO(json.dumps(manifest).encode()), MANIFEST_TYPES[1])
            entries += [_entry(normalized_name(name), described) for name in image.get("RepoTags") or ()]
        if not entries:
            raise ValueError("manifest.json names no image (RepoTags)")
        return entries

    def _take_layer(self, member: str) -> dict[str, Any]:
        # Images of one archive share layers.
        if member not in self._layers:
            packed = self._open(member).read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            kind = f"{_DOCKER}image.rootfs.diff.tar{'.gzip' if packed else ''}"
            self._layers[member] = self._store(self._open(member), kind)
        return self._layers[member]

    def _store(self, stream: IO[bytes], media_type: str) -> dict[str, Any]:
        digest, size = self._pool.store(stream)
        return {"mediaType": media_type, "digest": digest, "size": size}


def _entry(name: str, described: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "mediaType": described["mediaType"],
        "digest": described["digest"],
        "size": described["size"],
        "annotations": {NAME: name},
    }
