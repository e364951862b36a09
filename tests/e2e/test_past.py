"""`tiphys get --at`: a pod that is gone is seen as it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.e2e.cluster import TIPHYS, Cluster, eventually, run

pytestmark = pytest.mark.containerd


def test_A57_pod_that_is_gone_is_seen_as_it_was(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    kubectl("create", "configmap", "past", "--from-literal=n=1")

    def ask(when: str, *more: str) -> str:
        return run(TIPHYS, "get", "cm", "past", f"--at={when}", f"--name={cluster.name}", *more, check=False)

    # The first second that knows of it.
    eventually(lambda: "past" in ask("0 s ago"))
    moment = datetime.now(UTC).isoformat()
    kubectl("delete", "configmap", "past")
    eventually(lambda: "past" not in ask("0 s ago"))
    lines = ask(moment).splitlines()
    assert lines[0].split() == ["NAME", "DATA", "AGE"]
    assert lines[1].split()[:2] == ["past", "1"]
    assert json.loads(ask(moment, "--output=json"))["items"][0]["data"] == {"n": "1"}
    assert "is too long ago" in ask("2001-01-01T00:00:00Z")
