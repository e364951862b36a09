from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_cluster import claims
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import NETWORK_COUNT, Settings


def test_a_claim_names_the_home_and_the_settings(tmp_path: Path) -> None:
    settings = Settings("a", network=5)
    claims.write_claim(Layout("a", tmp_path / "home", tmp_path / "run"), settings)

    claim = claims.read_claims(tmp_path / "run")["a"]

    assert (claim.home, claim.settings) == (tmp_path / "home", settings)


def test_damaged_claims_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cluster.json").write_text("{")

    assert claims.read_claims(tmp_path) == {}


@pytest.mark.parametrize(
    ("own", "taken", "chosen"),
    [(0, set(), 0), (7, {0, 1}, 7), (0, {0}, 1), (3, {3, 0, 1}, 2)],
    ids=["first", "kept", "next", "gap"],
)
def test_a_network_is_kept_if_free_else_the_first_free_is_taken(own: int, taken: set[int], chosen: int) -> None:
    assert claims.choose_network(Settings("a", network=own), taken).network == chosen


def test_no_free_network_is_an_error() -> None:
    with pytest.raises(ClusterError, match="every network"):
        claims.choose_network(Settings("a"), range(NETWORK_COUNT))


def test_a_second_holder_of_a_clusters_lock_is_refused(tmp_path: Path) -> None:
    layout = Layout("a", tmp_path / "home", tmp_path / "run")
    with (
        claims.cluster_lock(layout),
        pytest.raises(ClusterError, match="another tiphys"),
        claims.cluster_lock(layout),
    ):
        raise AssertionError("the lock was given twice")


def test_clusters_start_side_by_side(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with (
        claims.cluster_lock(Layout("a", tmp_path, run)),
        claims.cluster_lock(Layout("b", tmp_path, run)),
        claims.machine_lock(run),
    ):
        assert (run / "a").is_dir()


def test_locks_leave_no_directory_behind(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with claims.cluster_lock(Layout("a", tmp_path, run)), claims.machine_lock(run):
        assert run.is_dir()

    assert not run.exists()


def test_locks_keep_a_directory_that_is_used(tmp_path: Path) -> None:
    layout = Layout("a", tmp_path / "home", tmp_path / "run")
    with claims.cluster_lock(layout):
        claims.write_claim(layout, Settings("a"))

    assert layout.claim.exists()


def test_networks_of_the_machine_are_known_by_its_routes() -> None:
    routes = (
        "Iface\tDestination\tGateway\tFlags\n"
        "eth0\t00000000\t010200C0\t0003\n"
        "tph2\t000212C6\t00000000\t0001\n"
        "tph300\t002C13C6\t00000000\t0001\n"
    )
    assert claims.networks_in_use(routes) == {2, 300}
