from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_cluster import settings as module
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.settings import MAX_NODES, Member, Settings, numbered


def test_addresses_follow_from_the_network_number() -> None:
    settings = Settings("a", network=300, members=numbered("node-1", "node-2"))

    assert settings.leg_ip == "198.19.44.1"
    assert settings.node_ip("node-2") == "198.19.44.12"


def test_the_default_cluster_has_the_address_of_the_design() -> None:
    assert Settings("a").leg_ip == "198.18.0.1"


def test_settings_come_back_from_disk_as_they_went(tmp_path: Path) -> None:
    settings = Settings("a", store="etcd", port_offset=7, network=3, members=numbered("x", "y"), etcd_port=23790)
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


def test_nodes_keep_their_addresses_when_one_in_the_middle_goes_and_the_next_takes_its_place() -> None:
    three = Settings("a", members=numbered("x", "y", "z"))

    two = three.without_node("y")
    again = two.with_node("w")

    assert [two.node_ip(node) for node in two.nodes] == ["198.18.0.11", "198.18.0.13"]
    assert [(node, again.node_ip(node)) for node in again.nodes] == [
        ("x", "198.18.0.11"),
        ("w", "198.18.0.12"),
        ("z", "198.18.0.13"),
    ]


@pytest.mark.parametrize(
    ("names", "free"),
    [(("node-1", "node-2"), "node-3"), (("node-2", "gpu"), "node-1"), (("node-1", "node-3"), "node-2"), ((), "node-1")],
)
def test_a_node_without_a_name_gets_the_first_that_is_free(names: tuple[str, ...], free: str) -> None:
    assert Settings("a", members=numbered(*names)).free_node_name() == free


def test_a_name_twice_or_a_node_too_many_is_refused() -> None:
    full = Settings("a", members=numbered(*(f"n{number}" for number in range(MAX_NODES))))

    with pytest.raises(ClusterError, match="has a node 'n7' already"):
        full.with_node("n7")
    with pytest.raises(ClusterError, match=f"at most {MAX_NODES} nodes"):
        full.with_node("more")


def test_a_home_of_the_first_version_is_read() -> None:
    old = '{"name": "a", "store": "sqlite", "nodes": ["node-1", "node-2"]}'

    assert Settings.from_json(old).members == (Member("node-1", 0), Member("node-2", 1))
