from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tiphys_cri.containerd import ImageFileError
from tiphys_cri.image_pool import ImagePool

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = gzip.compress(b"layer", mtime=0)
NAME = "docker.io/library/tool:1"
LATER_S = 10_000.0


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def oci(path: Path, *, layer: bytes = LAYER, name: str = "tool:1", **changes: Any) -> Path:
    """An OCI layout; changes go into the entry of its index."""
    config = b"{}"
    manifest = json.dumps({"config": described("config", config), "layers": [described("layer", LAYER)]}).encode()
    entry = {**described(MANIFEST, manifest), "annotations": {"org.opencontainers.image.ref.name": name}, **changes}
    files = {"./index.json": json.dumps({"manifests": [entry]}).encode()}
    files |= {f"./blobs/sha256/{digest(data)[7:]}": data for data in (config, manifest)}
    files[f"./blobs/sha256/{digest(LAYER)[7:]}"] = layer
    return write_tar(path, files)


def docker(path: Path) -> Path:
    listed = [{"Config": "c.json", "RepoTags": ["tool:1", "tool:2"], "Layers": ["a/layer.tar", "a/layer.tar"]}]
    return write_tar(path, {"manifest.json": json.dumps(listed).encode(), "c.json": b"{}", "a/layer.tar": b"plain"})


@pytest.fixture
def pool(tmp_path: Path) -> ImagePool:
    return ImagePool(tmp_path / "pool")


def test_a_layout_is_taken_in_blob_by_blob(pool: ImagePool, tmp_path: Path) -> None:
    assert pool.add(oci(tmp_path / "a.tar")) == [NAME]

    found = pool.read([NAME])
    assert [name for name, _ in found.images] == [NAME]
    assert [blob.digest for blob in found.blobs][1] == digest(LAYER)
    assert pool.path(digest(LAYER)).read_bytes() == LAYER
    assert found.blobs[-1].labels["containerd.io/gc.ref.content.l.0"] == digest(LAYER)


def test_what_docker_saved_gets_a_manifest(pool: ImagePool, tmp_path: Path) -> None:
    assert pool.add(docker(tmp_path / "a.tar")) == [NAME, "docker.io/library/tool:2"]

    found = pool.read([NAME])
    assert pool.path(digest(b"plain")).read_bytes() == b"plain"
    manifest = json.loads(pool.path(found.images[0][1].digest).read_bytes())
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.docker.image.rootfs.diff.tar"] * 2


def test_adding_again_replaces_the_name_and_keeps_the_files(pool: ImagePool, tmp_path: Path) -> None:
    pool.add(docker(tmp_path / "a.tar"))
    link = tmp_path / "link"
    os.link(pool.path(digest(b"plain")), link)
    pool.add(docker(tmp_path / "a.tar"))

    assert link.stat().st_ino == pool.path(digest(b"plain")).stat().st_ino
    assert len(pool.images()) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": b"tampered"}, "the archive calls it"),
        ({"digest": "sha256:../../../../etc/passwd"}, "no sha256 digest"),
        ({"digest": digest(b"absent")}, "missing in the archive"),
        ({"annotations": {}}, "names no image"),
        ({"size": "x"}, "can't be read"),
    ],
    ids=["content", "digest-as-path", "absent", "no-name", "size"],
)
def test_a_damaged_layout_is_refused_and_leaves_no_image(
    pool: ImagePool, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImageFileError, match=message):
        pool.add(oci(tmp_path / "a.tar", **changes))

    assert pool.images() == {}
    assert not list((tmp_path / "pool").glob(".blob*"))


@pytest.mark.parametrize("content", [b"", b"no tar"], ids=["empty", "text"])
def test_what_is_no_archive_is_refused(pool: ImagePool, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)

    with pytest.raises(ImageFileError, match=r"a\.tar: can't be read as an image archive"):
        pool.add(tmp_path / "a.tar")


def test_what_no_content_store_has_any_more_is_dropped(pool: ImagePool, tmp_path: Path) -> None:
    pool.add(oci(tmp_path / "a.tar"))
    manifest = pool.path(pool.images()[NAME])
    link = tmp_path / "link"
    os.link(manifest, link)
    now = manifest.stat().st_mtime

    assert pool.prune(now + LATER_S) == []
    link.unlink()
    assert pool.prune(now) == []
    assert pool.prune(now + LATER_S) == [NAME]
    assert list((tmp_path / "pool" / "blobs" / "sha256").iterdir()) == []


def test_pinned_images_stay_and_blobs_that_two_share_stay_with_the_other(pool: ImagePool, tmp_path: Path) -> None:
    pool.add(oci(tmp_path / "a.tar"), pinned=True)
    pool.add(oci(tmp_path / "b.tar", name="other:1"))

    assert pool.prune(pool.path(digest(LAYER)).stat().st_mtime + LATER_S) == ["docker.io/library/other:1"]
    assert pool.images().keys() == {NAME}
    assert pool.path(digest(LAYER)).exists()
