from __future__ import annotations

from pathlib import Path

from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_cluster import components, loops
from tiphys_cluster.storage import OBJECTS
from tiphys_csi.hostpath.manifests import manifests
from tiphys_csi.hostpath.rules import DRIVER_NAME


def test_the_objects_are_those_of_the_driver() -> None:
    assert list(OBJECTS.values()) == [to_json(message) for message in manifests()]
    assert components.HOSTPATH_DRIVER == DRIVER_NAME


def test_only_loop_devices_over_files_of_the_directory_are_meant(tmp_path: Path) -> None:
    for name, file in {
        "loop0": "/data/a/nodes/one/x.img",
        "loop1": "/data/ab/x.img",
        "loop2": "/data/a/y (deleted)",
    }.items():
        (tmp_path / name / "loop").mkdir(parents=True)
        (tmp_path / name / "loop" / "backing_file").write_text(f"{file}\n")
    (tmp_path / "loop3").mkdir()

    assert loops.devices_below(Path("/data/a"), tmp_path) == ["loop0", "loop2"]
