from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from tiphys_cluster import choices, claims
from tiphys_cluster.child import ChildSpec
from tiphys_cluster.choices import Wish, merge
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.layout import Layout, check_name
from tiphys_cluster.processes import identify
from tiphys_cluster.settings import Settings, numbered


def test_what_is_not_wished_stays_as_it_was() -> None:
    kept = Settings("a", store="etcd", port_offset=100, network=3)

    assert merge(Wish("a"), kept) == kept


def test_a_first_start_takes_the_defaults() -> None:
    assert merge(Wish("a"), None) == Settings("a", store="sqlite")


def test_a_first_start_makes_the_nodes_that_are_wished_and_the_next_keeps_them() -> None:
    first = merge(Wish("a", nodes=3, devices="gpu:8", flannel_backend="host-gw"), None)

    assert first.members == numbered("node-1", "node-2", "node-3", devices="gpu:8")
    assert merge(Wish("a"), first) == merge(Wish("a", nodes=3), first) == first
    assert merge(Wish("a", flannel_backend="udp"), first).flannel_backend == "udp"


def test_another_offset_is_taken_over() -> None:
    assert merge(Wish("a", port_offset=5), Settings("a", port_offset=1)).port_offset == 5


@pytest.mark.parametrize(
    ("wish", "kept", "message"),
    [
        (Wish("a", store="etcd"), Settings("a"), "keeps its data in sqlite"),
        (Wish("b"), Settings("a"), "belongs to cluster 'a'"),
        (Wish("a", port_offset=-1), None, "port offset"),
        (Wish("a", port_offset=60000), None, "port offset"),
        (Wish("a", nodes=2), Settings("a"), r"has 1 nodes \(node-1\), not 2\n.*tiphys node add --name a"),
        (Wish("a", nodes=0), None, "1 to 200 nodes, not 0"),
        (Wish("a", nodes=201), None, "1 to 200 nodes, not 201"),
        (Wish("a", devices="gpu"), None, "'gpu' are not understood"),
    ],
    ids=[
        "other-store",
        "other-name",
        "negative-offset",
        "offset-too-high",
        "other-number-of-nodes",
        "no-node",
        "too-many-nodes",
        "devices",
    ],
)
def test_a_wish_against_what_is_there_is_refused(wish: Wish, kept: Settings | None, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        merge(wish, kept)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "..", "a" * 32, "a b"])
def test_names_that_would_not_fit_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="not allowed"):
        check_name(name)


def test_a_running_cluster_is_found_by_its_name_alone(tmp_path: Path) -> None:
    claims.write_claim(Layout("a", tmp_path / "elsewhere", tmp_path), Settings("a"))

    assert choices.layout_for("a", None, tmp_path).home == tmp_path / "elsewhere"


def test_a_running_cluster_with_another_home_is_refused(tmp_path: Path) -> None:
    claims.write_claim(Layout("a", tmp_path / "elsewhere", tmp_path), Settings("a"))

    with pytest.raises(ClusterError, match="is up with its home in"):
        choices.layout_for("a", tmp_path / "here", tmp_path)


def test_settings_survive_a_deleted_home_while_the_cluster_runs(tmp_path: Path) -> None:
    layout = Layout("a", tmp_path / "home", tmp_path)
    claims.write_claim(layout, Settings("a", network=9))

    assert choices.kept_settings(layout) == Settings("a", network=9)


def test_only_living_recorded_processes_count_as_the_clusters(tmp_path: Path) -> None:
    layout = Layout("a", tmp_path / "home", tmp_path)
    layout.children.mkdir(parents=True)
    me = identify(os.getpid())
    assert me is not None
    for name, start in (("alive", me.start), ("number-used-again", me.start - 1)):
        spec = ChildSpec(name, (), ports=(1,))
        layout.child(name).write_text(json.dumps({"spec": spec.to_dict(), "pid": me.pid, "start": start}))
    layout.child("damaged").write_text("{")

    assert [spec.name for spec in choices.read_living(layout)] == ["alive"]


def test_etcd_keeps_its_ports_unless_they_are_taken() -> None:
    first = choices.free_port_pair(0)

    assert choices.free_port_pair(first) == first
    with socket.create_server(("127.0.0.1", first + 1)):
        assert choices.free_port_pair(first) != first
