from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiphys_cluster import claims
from tiphys_cluster.choices import Machine
from tiphys_cluster.errors import NotRunningError
from tiphys_cluster.layout import Layout
from tiphys_cluster.membership import Membership, PodName, read_pods
from tiphys_cluster.progress import Silent
from tiphys_cluster.settings import Settings
from tiphys_component.clock import SystemClock


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": name, **metadata}}


@pytest.mark.parametrize(
    ("metadata", "stays"),
    [
        ({}, False),
        ({"ownerReferences": [{"kind": "ReplicaSet"}]}, False),
        ({"ownerReferences": [{"kind": "DaemonSet"}]}, True),
        ({"annotations": {"kubernetes.io/config.mirror": "x"}}, True),
    ],
    ids=["bare", "replica", "daemon", "static"],
)
def test_pods_that_come_back_as_long_as_the_node_is_there_are_not_waited_for(
    metadata: dict[str, Any], stays: bool
) -> None:
    assert read_pods([pod("a", **metadata)]) == [PodName("default", "a", stays)]


def test_a_pod_is_where_the_api_server_has_it() -> None:
    assert PodName("default", "a", stays=False).path == "/api/v1/namespaces/default/pods/a"


@pytest.mark.parametrize("claimed", [False, True], ids=["never-up", "supervisor-gone"])
def test_nodes_of_a_cluster_that_does_not_run_are_not_changed(tmp_path: Path, claimed: bool) -> None:
    layout = Layout("a", tmp_path / "home", tmp_path / "run")
    if claimed:
        claims.write_claim(layout, Settings("a"))

    with pytest.raises(NotRunningError, match="tiphys up --name a"):
        Membership(layout, machine=Machine(), clock=SystemClock(), progress=Silent())
