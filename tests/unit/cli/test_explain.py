"""How `tiphys explain` shows what the scheduler says."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tiphys.scheduler.v1 import scheduler_pb2 as pb
from tiphys_cli.explain import show

RED = pb.PluginRefusal(plugin="TaintToleration", reasons=["node(s) had untolerated taint {team: red}"])


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        (
            pb.ExplainResponse(
                message="0/3 nodes are available: 3 node(s) had untolerated taint {team: red}.",
                classes=[pb.NodeClass(count=3, nodes=["a", "b", "c"], refusals=[RED])],
                remedies=[pb.Remedy(text="tolerate team=red:NoSchedule", nodes=3, example="a")],
            ),
            [
                "default/p  fits nowhere: 0/3 nodes are available: 3 node(s) had untolerated taint {team: red}.",
                "3      TaintToleration node(s) had untolerated taint {team: red}  a, b, c",
                "would fit: tolerate team=red:NoSchedule (3 nodes, a first)",
            ],
        ),
        (
            pb.ExplainResponse(
                best="a",
                best_score=42,
                classes=[pb.NodeClass(count=1, nodes=["a"], scores={"NodeResourcesFit": 40, "ImageLocality": 2})],
            ),
            ["default/p  goes to a, score 42", "1      fits NodeResourcesFit 40, ImageLocality 2  a"],
        ),
        (
            pb.ExplainResponse(bound="b", best="a"),
            ["default/p  is on b; placed anew it would go to a"],
        ),
    ],
    ids=["fits nowhere", "fits", "bound already"],
)
def test_C31_the_answer_is_a_table_for_people(reply: pb.ExplainResponse, lines: list[str]) -> None:
    out = io.StringIO()
    show(Console(file=out, soft_wrap=True, width=200), "default/p", reply)
    shown = [line.rstrip() for line in out.getvalue().splitlines()]
    for line in lines:
        assert line in shown
