from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_cluster import settings as module
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.settings import Settings


def test_addresses_follow_from_the_network_number() -> None:
    settings = Settings("a", network=300, nodes=("node-1", "node-2"))

    assert settings.leg_ip == "198.19.44.1"
    assert settings.node_ip("node-2") == "198.19.44.12"


def test_the_default_cluster_has_the_address_of_the_design() -> None:
    assert Settings("a").leg_ip == "198.18.0.1"


def test_settings_come_back_from_disk_as_they_went(tmp_path: Path) -> None:
    settings = Settings("a", store="etcd", port_offset=7, network=3, nodes=("x", "y"), etcd_port=23790)
    module.save(tmp_path / "cluster.json", settings)

    assert module.load(tmp_path / "cluster.json") == settings


def test_absent_settings_are_none(tmp_path: Path) -> None:
    assert module.load(tmp_path / "cluster.json") is None


@pytest.mark.parametrize("text", ["", "[]", '{"name": "a", "store": "paper"}', '{"store": "sqlite"}'])
def test_damaged_settings_are_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(text)

    with pytest.raises(ClusterError, match=str(path)):
        module.load(path)


def test_settings_of_a_later_version_are_read_without_what_is_unknown() -> None:
    assert Settings.from_json('{"name": "a", "store": "sqlite", "colour": "blue"}') == Settings("a")


def test_written_files_are_private_unless_told_otherwise(tmp_path: Path) -> None:
    module.write_atomic(tmp_path / "a", "x")
    module.write_atomic(tmp_path / "b", "x", mode=0o644)

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
