"""Writes OCI image archives: one layer made from files in memory, with no tool and no registry.

The same files give the same bytes, so an image's digest says whether it changed.
Source: the OCI image format specification 1.0 (layout, manifest, configuration).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a layer: content, or target for a symbolic link; a directory has neither."""

    content: bytes | None = None
    target: str = ""
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Image:
    """What an image holds and how it starts; names are full references with a tag."""

    names: tuple[str, ...]
    entries: Mapping[str, Entry]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


def architecture() -> str:
    """This machine's architecture by the name images use."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def archive(image: Image) -> bytes:
    """The image as a tar archive in OCI layout, uncompressed outside, its layer gzipped inside."""
    layer = _layer(image.entries)
    packed = gzip.compress(layer, 6, mtime=0)
    config = _json(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": _drop_empty(
                {
                    "Entrypoint": list(image.entrypoint),
                    "Cmd": list(image.command),
                    "Env": list(image.environment),
                    "Labels": dict(image.labels),
                    "User": image.user,
                }
            ),
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created_by": "tiphys"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, packed)],
        }
    )
    index = _json({"schemaVersion": 2, "manifests": [_named(manifest, name) for name in image.names]})
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    files |= {f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}": blob for blob in (config, manifest, packed)}
    return _tar({name: Entry(content, mode=0o644) for name, content in files.items()})


def read_names(path: Path) -> list[str]:
    """The names of the images in an archive made by archive()."""
    with tarfile.open(path) as file:
        member = file.extractfile("index.json")
        index = json.loads(member.read()) if member is not None else {}
    return [entry["annotations"]["io.containerd.image.name"] for entry in index.get("manifests", ())]


def _named(manifest: bytes, name: str) -> dict[str, object]:
    return {
        **_descriptor(_MANIFEST, manifest),
        "platform": {"architecture": architecture(), "os": "linux"},
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
    }


def _layer(entries: Mapping[str, Entry]) -> bytes:
    whole: dict[str, Entry] = {}
    for path in sorted(entries):
        for parent in reversed(Path(path).parents[:-1]):
            whole.setdefault(str(parent), Entry())
        whole[path] = entries[path]
    return _tar(whole)


def _tar(entries: Mapping[str, Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        for path, entry in entries.items():
            info = tarfile.TarInfo(path)
            info.mode = entry.mode
            if entry.content is not None:
                info.size = len(entry.content)
                file.addfile(info, io.BytesIO(entry.content))
                continue
            info.type = tarfile.SYMTYPE if entry.target else tarfile.DIRTYPE
            info.linkname = entry.target
            file.addfile(info)
    return buffer.getvalue()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _drop_empty(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value}
