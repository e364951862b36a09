from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiphys_cni import conflist, readiness
from tiphys_cni.ipam.store import Owner, Store
from tiphys_sdk.cni.spec import ErrorCode

_REFUSES = """#!/bin/sh
[ "$CNI_COMMAND" = STATUS ] || exit 9
echo '{"cniVersion": "1.1.0", "code": 51, "msg": "the controller is gone"}'
exit 1
"""


def written(folder: Path, *plugins: dict[str, Any], version: str = "1.0.0") -> Path:
    conflist.write(folder, {"cniVersion": version, "name": "net", "plugins": list(plugins)})
    return folder


def executable(folder: Path, name: str) -> Path:
    """A plugin that is not ours and is not ready, linked as --plugin-dir has it."""
    folder.mkdir()
    target = folder / f"{name}.theirs"
    target.write_text(_REFUSES)
    target.chmod(0o755)
    (folder / name).symlink_to(target)
    return folder


def test_F23_a_missing_list_is_told_with_what_it_waits_for(tmp_path: Path) -> None:
    found = readiness.trouble(tmp_path, None, "the range is not known")

    assert found is not None
    assert found.message == f"no network configuration list in {tmp_path}: the range is not known"


def test_F23_the_first_plugin_that_is_not_ready_is_told_in_its_own_words(tmp_path: Path) -> None:
    lost = tmp_path / "subnet.env"
    folder = written(tmp_path, {"type": "loopback"}, {"type": "flannel", "subnetFile": str(lost)})
    found = readiness.trouble(folder, None, "")

    assert found is not None
    message = f"flannel: {lost} is missing: the flannel service holds no subnet for this node"
    assert (found.code, found.message) == (ErrorCode.PLUGIN_NOT_AVAILABLE, message)


def test_a_range_without_an_address_left_is_told_by_a_code_of_its_own(tmp_path: Path) -> None:
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": [[{"subnet": "10.1.0.0/30"}]]}
    folder = written(tmp_path, {"type": "bridge", "ipam": ipam})
    assert readiness.trouble(folder, None, "") is None
    store = Store("net", str(tmp_path))
    with store.locked():
        (tmp_path / "net" / "10.1.0.2").write_text("c1\r\neth0")
        assert set(store.taken().values()) == {Owner("c1", "eth0")}

    found = readiness.trouble(folder, None, "")
    assert found is not None
    assert (found.code, found.message) == (
        ErrorCode.ADDRESSES_EXHAUSTED,
        "bridge: no IP addresses left in range 10.1.0.1-10.1.0.2",
    )


@pytest.mark.parametrize(
    ("version", "name", "said"),
    [
        ("1.1.0", "theirs", "theirs: the controller is gone"),
        ("1.1.0", "bridge", "bridge: the controller is gone"),
        ("1.0.0", "theirs", ""),
        ("0.3.1", "bridge", ""),
    ],
    ids=["asked", "in place of ours", "too old to be asked", "ours are not asked for them"],
)
def test_F23_plugins_of_others_are_asked_where_their_version_has_the_verb(
    tmp_path: Path, version: str, name: str, said: str
) -> None:
    binaries = executable(tmp_path / "bin", name)
    found = readiness.trouble(written(tmp_path, {"type": name}, version=version), binaries, "")

    assert (found.message if found is not None else "") == said


@pytest.mark.parametrize("text", ["", "{", "{}", json.dumps({"name": "net", "plugins": [{}]})])
def test_a_damaged_list_is_trouble(tmp_path: Path, text: str) -> None:
    (tmp_path / conflist.FILE_NAME).write_text(text)
    found = readiness.trouble(tmp_path, None, "")

    assert found is not None
    assert found.code == ErrorCode.INVALID_CONFIG
