from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from tiphys_cluster.images.oci import Entry, Image, archive, read_names

IMAGE = Image(
    names=("docker.io/library/a:1", "docker.io/library/a:latest"),
    entries={"bin/sh": Entry(target="busybox"), "bin/busybox": Entry(b"program"), "tmp": Entry(mode=0o1777)},
    entrypoint=("/bin/sh",),
    environment=("A=b",),
)


def files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar.getmembers()]
        return {name: member.read() for name, member in members if member is not None}


def blob(content: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    data = content[f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"]
    assert len(data) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
    return data


def test_every_descriptor_names_what_is_there() -> None:
    content = files(archive(IMAGE))
    index = json.loads(content["index.json"])
    manifest = json.loads(blob(content, index["manifests"][0]))
    config = json.loads(blob(content, manifest["config"]))
    layer = gzip.decompress(blob(content, manifest["layers"][0]))

    assert config["config"] == {"Entrypoint": ["/bin/sh"], "Env": ["A=b"]}
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]


def test_the_layer_has_parents_links_and_modes() -> None:
    content = files(archive(IMAGE))
    manifest = json.loads(blob(content, json.loads(content["index.json"])["manifests"][0]))
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(content, manifest["layers"][0])))) as layer:
        assert layer.getnames() == ["bin", "bin/busybox", "bin/sh", "tmp"]
        assert layer.getmember("bin").isdir()
        assert layer.getmember("bin/sh").linkname == "busybox"
        assert layer.getmember("tmp").mode == 0o1777


def test_the_same_files_give_the_same_bytes() -> None:
    assert archive(IMAGE) == archive(IMAGE)


def test_all_names_point_to_the_one_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(archive(IMAGE))

    assert read_names(path) == list(IMAGE.names)
