"""Images that are loaded once, on several real containerds."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.cluster.bed import NETWORK, Bed
from tiphys_cluster.images import loading
from tiphys_cluster.images.builtin import PAUSE, ensure_archives
from tiphys_cluster.layout import CACHE
from tiphys_cri.endpoint import channel
from tiphys_cri.image import GrpcImageService

pytestmark = [
    pytest.mark.netns,
    pytest.mark.containerd,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

_MIB = 1 << 20
_BIG = "example.com/big:1"
_ISOLATED = '[plugins."io.containerd.metadata.v1.bolt"]\ncontent_sharing_policy = "isolated"\n'


def write_image(path: Path, size: int) -> str:
    """An archive of one image, with one layer of this size; the layer's digest."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as file:
        info = tarfile.TarInfo("big")
        info.size = size
        file.addfile(info, io.BytesIO(os.urandom(_MIB) * (size // _MIB)))
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    )
    kind = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": described(f"{kind}.config.v1+json", config),
            "layers": [
                {"mediaType": f"{kind}.layer.v1.tar", "digest": f"sha256:{digest}", "size": layer.stat().st_size}
            ],
        }
    )
    entry = {**described(f"{kind}.manifest.v1+json", manifest), "annotations": {"io.containerd.image.name": _BIG}}
    with tarfile.open(path, "w") as file:
        for name, text in (
            ("index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]})),
            (blob(config), config),
            (blob(manifest), manifest),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            file.addfile(info, io.BytesIO(text.encode()))
        file.add(layer, f"blobs/sha256/{digest}")
    layer.unlink()
    return digest


def described(kind: str, text: str) -> dict[str, object]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(text)}


def blob(text: str) -> str:
    return f"blobs/sha256/{hashlib.sha256(text.encode()).hexdigest()}"


@pytest.fixture
async def bed(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bed]:
    bed = Bed(tmp_path, "itest-i", NETWORK + 2, nodes=getattr(request, "param", 1))
    await bed.wire()
    yield bed
    await bed.down()
    for directory in (bed.layout.run_root, bed.layout.run_root.parent):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


async def listed(bed: Bed, node: str) -> set[str]:
    """What the node's runtime tells a kubelet."""
    async with channel(f"unix://{bed.layout.node(node).containerd_socket}") as connection:
        return {tag for image in await GrpcImageService(connection).list_images() for tag in image.repo_tags}


def content(bed: Bed, node: str, digest: str) -> Path:
    return bed.layout.node(node).containerd_root / "io.containerd.content.v1.content" / "blobs" / "sha256" / digest


@pytest.mark.parametrize("bed", [5], indirect=True)
async def test_L22_an_image_loaded_once_is_visible_on_every_node_without_a_copy(bed: Bed, tmp_path: Path) -> None:
    """What makes it take less than a second: no byte goes anywhere. The time itself is told, not judged."""
    digest = write_image(tmp_path / "big.tar", 200 * _MIB)
    nodes = bed.settings.nodes
    files = [bed.layout.node(node) for node in nodes]
    async with await bed.start_containerd():
        loading.fill_pool(bed.layout.images, ensure_archives(CACHE / "images"))
        await loading.load_images(bed.layout.images, files[:1], tmp_path / "big.tar")

        began = time.monotonic()
        await loading.load_images(bed.layout.images, files, tmp_path / "big.tar")
        took_s = time.monotonic() - began
        assert all([_BIG in await listed(bed, node) for node in nodes])
        print(f"200 MiB visible on {len(nodes)} nodes after {took_s:.2f} s")  # noqa: T201 a figure of the test
        # One file, however many content stores have it.
        assert {content(bed, node, digest).stat().st_ino for node in nodes} == {
            (bed.layout.images / "blobs" / "sha256" / digest).stat().st_ino
        }
        # Enough to run from: the runtime unpacks it when a container is made.
        last = files[-1]
        ctr = ("ctr", f"--address={last.containerd_socket}", "--namespace=k8s.io")
        target = last.home / "mounted"
        target.mkdir()
        inside = ["nsenter", f"--net={last.netns}", f"--mount={last.mntns}"]
        subprocess.run([*inside, *ctr, "images", "mount", _BIG, str(target)], check=True, timeout=30)
        look = subprocess.run([*inside, "stat", "-c", "%s", str(target / "big")], check=True, capture_output=True)
        assert int(look.stdout) == 200 * _MIB
        subprocess.run([*inside, *ctr, "images", "unmount", "--rm", str(target)], check=True, timeout=30)


async def test_a_runtime_that_shares_no_content_is_sent_the_bytes(bed: Bed, tmp_path: Path) -> None:
    digest = write_image(tmp_path / "big.tar", 3 * _MIB)
    async with await bed.start_containerd(extra=_ISOLATED):
        await loading.load_images(bed.layout.images, map(bed.layout.node, bed.settings.nodes), tmp_path / "big.tar")

        assert _BIG in await listed(bed, "node-1")
        assert content(bed, "node-1", digest).stat().st_size > 3 * _MIB


async def test_an_image_removed_from_a_node_comes_back_only_when_it_is_loaded_again(bed: Bed, tmp_path: Path) -> None:
    write_image(tmp_path / "big.tar", _MIB)
    async with await bed.start_containerd():
        await loading.load_images(bed.layout.images, map(bed.layout.node, bed.settings.nodes), tmp_path / "big.tar")
        await remove_image(bed, _BIG)
        loading.fill_pool(bed.layout.images, ensure_archives(CACHE / "images"))
        assert _BIG not in await loading.ensure_images(bed.layout.images, bed.layout.node("node-1"))
        assert PAUSE in await listed(bed, "node-1")
        assert _BIG not in await listed(bed, "node-1")

        await loading.load_images(bed.layout.images, map(bed.layout.node, bed.settings.nodes), tmp_path / "big.tar")
        assert _BIG in await listed(bed, "node-1")


async def remove_image(bed: Bed, name: str) -> None:
    async with channel(f"unix://{bed.layout.node('node-1').containerd_socket}") as connection:
        await GrpcImageService(connection).remove_image(name)
    async with asyncio.timeout(5):
        while name in await listed(bed, "node-1"):
            pass
