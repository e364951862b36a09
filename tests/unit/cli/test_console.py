from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from tiphys_cli.console import ProgressLines, fail, print_table, run
from tiphys_cluster.errors import ClusterError, NotRunningError, PreflightError


def lines(*, error: Exception | None = None) -> list[str]:
    out = io.StringIO()
    progress = ProgressLines(Console(file=out, width=100))
    try:
        with progress:
            progress.step("first")
            progress.step("second")
            if error is not None:
                raise error
    except ClusterError:
        pass
    return out.getvalue().splitlines()


def test_each_step_that_is_done_is_one_line_with_its_time() -> None:
    assert [line.rsplit(" ", 2)[0] for line in lines()] == ["✓ first", "✓ second"]


def test_the_step_that_failed_is_marked() -> None:
    assert [line[0] for line in lines(error=ClusterError("no"))] == ["✓", "✗"]


async def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code"), [(ClusterError("no", "do this"), 1), (NotRunningError("no", "do this"), 3)], ids=["1", "3"]
)
def test_an_expected_error_ends_the_command_with_its_message_and_remedy(
    error: ClusterError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(_raise(error))

    assert ended.value.code == code
    assert capsys.readouterr().err == "error: no\n  do this\n"


def test_an_unexpected_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(_raise(ZeroDivisionError()))


def test_one_remedy_of_several_problems_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    problems = (ClusterError("port 1", "move"), ClusterError("port 2", "move"), ClusterError("disk [full]", "free"))

    with pytest.raises(SystemExit):
        fail(PreflightError(problems))

    assert capsys.readouterr().err.splitlines() == [
        "error: port 1",
        "error: port 2",
        "  move",
        "error: disk [full]",
        "  free",
    ]


def test_a_table_is_never_cut_to_the_width_of_the_terminal() -> None:
    written = io.StringIO()
    table = Table("PROCESS", "PORTS", box=None)
    table.add_row("kube-controller-manager", " ".join(["10257"] * 20))
    print_table(Console(file=written, width=40), table)
    header, row = written.getvalue().splitlines()
    assert row.split() == ["kube-controller-manager", *["10257"] * 20]
    assert header.split() == ["PROCESS", "PORTS"]
