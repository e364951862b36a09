"""tiphys what-if: which files are taken, what is said of others, and how the answer is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tiphys.scheduler.v1 import scheduler_pb2
from tiphys_apimachinery.errors import BadRequest
from tiphys_cli.main import tiphys
from tiphys_cli.what_if import read_pods, table_lines

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{name: c, image: busybox}]}\n"


def pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "busybox"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": containers, **spec},
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param(POD % "a", ["team/a"], id="one"),
        pytest.param("---\n".join(POD % name for name in "ab"), ["team/a", "team/b"], id="several documents"),
        pytest.param(json.dumps(pod("a")), ["default/a"], id="json, a namespace of its own"),
        pytest.param(
            json.dumps({"kind": "List", "items": [pod("a"), pod("b")]}), ["default/a", "default/b"], id="list"
        ),
        pytest.param(json.dumps({"kind": "PodList", "items": [pod("a")]}), ["default/a"], id="list of pods"),
    ],
)
def test_C32_pods_are_read(text: str, names: list[str]) -> None:
    found = [item["metadata"] for item in read_pods(text.encode(), "team")]
    assert [f"{metadata['namespace']}/{metadata['name']}" for metadata in found] == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "no pod in it", id="empty"),
        pytest.param("just text", "this is no object", id="no object"),
        pytest.param("apiVersion: apps/v1\nkind: Deployment", "this is Deployment", id="another kind"),
        pytest.param("apiVersion: v1\nkind: Pod", "has no name", id="no name"),
        pytest.param((POD % "a") + "---\n" + (POD % "a"), "default/a is there twice", id="twice"),
        pytest.param("a: [", "error converting YAML", id="no YAML"),
        pytest.param("kind: List\nitems: 3", "this is no object", id="list of a number"),
    ],
)
def test_C32_other_files_are_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        list(read_pods(text.encode(), "default"))


def test_C32_the_command_says_what_to_do(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("apiVersion: apps/v1\nkind: Deployment")
    outcome = CliRunner().invoke(tiphys, ["what-if", "-f", str(wrong)])
    assert outcome.exit_code == 1
    assert "only pods can be tried, this is Deployment" in outcome.stderr
    assert "--dry-run=client" in outcome.stderr
    outcome = CliRunner().invoke(tiphys, ["what-if", "-f", str(tmp_path / "absent")])
    assert outcome.exit_code == 2


def test_C32_the_answer_is_a_table_as_kubectl_shows_them() -> None:
    outcomes = [
        scheduler_pb2.Outcome(namespace="default", name="a", node="node-1", score=640),
        scheduler_pb2.Outcome(namespace="team", name="big", message="0/2 nodes are available: 2 Insufficient cpu."),
        scheduler_pb2.Outcome(
            namespace="team", name="vip", message="0/2 nodes are available.", victims=["default/low", "default/lower"]
        ),
    ]
    assert list(table_lines(outcomes)) == [
        "NAMESPACE   NAME   NODE     SCORE    MESSAGE",
        "default     a      node-1   640",
        "team        big    <none>   <none>   0/2 nodes are available: 2 Insufficient cpu.",
        "team        vip    <none>   <none>   0/2 nodes are available. It would fit were these gone, which it may"
        " preempt: default/low, default/lower",
    ]
