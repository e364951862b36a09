from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tiphys_cluster import pod_network
from tiphys_cluster.choices import Wish, merge
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.settings import Settings, numbered

_LIST = '{"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "bridge"}]}'


def test_F16_pods_are_in_the_usual_range_unless_another_is_wished_and_that_is_kept() -> None:
    wished = merge(Wish("a", pod_cidr="10.60.0.0/16"), None)

    assert merge(Wish("a"), None).pod_cidr == "10.244.0.0/16"
    assert wished.pod_cidr == "10.60.0.0/16"
    assert merge(Wish("a"), wished) == merge(Wish("a", pod_cidr="10.60.0.0/16"), wished) == wished


@pytest.mark.parametrize(
    ("cidr", "nodes", "message"),
    [
        ("rubbish", 1, "'rubbish' is no IPv4 range"),
        ("10.60.0.1/16", 1, "host bits set"),
        ("fd00::/48", 1, "no IPv4 range"),
        ("10.60.0.0/25", 1, "room for 0 nodes"),
        ("10.60.0.0/23", 3, "room for 2 nodes with a /24 each, not 3"),
        ("10.100.0.0/16", 1, "overlaps 10.96.0.0/12, the range of services"),
        ("198.18.4.0/24", 1, "overlaps 198.18.0.0/15, the range of nodes"),
    ],
)
def test_F16_a_range_that_can_not_be_one_is_refused(cidr: str, nodes: int, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        pod_network.check_pod_cidr(cidr, nodes=nodes)


def test_F16_nodes_that_have_ranges_do_not_get_others() -> None:
    kept = replace(Settings("a"), members=numbered("node-1"))

    with pytest.raises(ClusterError, match=r"has its pods in 10\.244\.0\.0/16, not 10\.60\.0\.0/16"):
        merge(Wish("a", pod_cidr="10.60.0.0/16"), kept)


def test_F18_a_network_of_the_users_own_is_kept_with_the_cluster(tmp_path: Path) -> None:
    own = tmp_path / "own.conflist"
    own.write_text(_LIST)
    first = merge(Wish("a", cni_conf=own, cni_bin_dir=tmp_path), None)
    own.unlink()

    assert (first.cni_conf, first.cni_bin_dir) == (_LIST, str(tmp_path))
    assert Settings.from_json(first.to_json()) == merge(Wish("a"), first) == first


@pytest.mark.parametrize("text", ["", "[]", '{"name": "own"}', '{"name": "own", "plugins": [{}]}', '{"plugins": []}'])
def test_F18_a_file_that_is_no_network_configuration_list_is_refused(tmp_path: Path, text: str) -> None:
    own = tmp_path / "own.conflist"
    own.write_text(text)

    with pytest.raises(ClusterError, match=str(own)):
        pod_network.read_network_list(own)


def test_F18_a_folder_of_plugins_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no folder"):
        pod_network.check_bin_dir(tmp_path / "none")
