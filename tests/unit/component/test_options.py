"""Flags to options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tiphys_component.options import LogOptions, flag, parse, parse_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """A service for tests.

    More text that the help leaves out.
    """

    node_name: str = flag("--node-name", "--hostname-override", help="name of this node")
    port: int = flag("--secure-port", default=6443, help="100% TLS")
    home: Path = flag("--home", default=Path("/x"), help="folder")
    period_s: float = flag("--period", default=1.0, duration=True, help="how often")
    leader_elect: bool = flag("--leader-elect", default=True, help="one of many")
    mode: Literal["nftables", "iptables"] = flag("--proxy-mode", default="nftables", help="back end")
    servers: tuple[str, ...] = flag("--etcd-servers", default=(), help="where")
    gates: Mapping[str, str] = flag("--feature-gates", default={}, help="switches")
    token: str | None = flag("--token", default=None, help="secret")
    internal: int = field(default=3)


def test_defaults_stand_when_a_flag_is_absent() -> None:
    assert parse(Options, ["--node-name", "n1"]) == Options(node_name="n1")


def test_every_kind_of_value_is_read() -> None:
    argv = (
        "--hostname-override=n2 --secure-port 0 --home /srv --period 1m30s --leader-elect=false --proxy-mode iptables "
        "--etcd-servers a,b --etcd-servers c --feature-gates X=true,Y=1 --feature-gates Y=2 --token t --log-level debug"
    )
    assert parse(Options, argv.split()) == Options(
        node_name="n2",
        port=0,
        home=Path("/srv"),
        period_s=90.0,
        leader_elect=False,
        mode="iptables",
        servers=("a", "b", "c"),
        gates={"X": "true", "Y": "2"},
        token="t",
        log_level="debug",
    )


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        pytest.param([], "--node-name", id="required flag missing"),
        pytest.param(["--node-name=n", "--secure-port=x"], "invalid int value: 'x'", id="not a number"),
        pytest.param(["--node-name=n", "--period=5 days"], "invalid duration value", id="not a duration"),
        pytest.param(["--node-name=n", "--proxy-mode=ebpf"], "invalid choice: 'ebpf'", id="not a choice"),
        pytest.param(["--node-name=n", "--leader-elect=maybe"], "invalid boolean value", id="not a boolean"),
        pytest.param(["--node-name=n", "--feature-gates=X"], "invalid map value", id="no equals sign"),
        pytest.param(["--node-name=n", "--secure"], "unrecognized arguments", id="no abbreviations"),
    ],
)
def test_wrong_flag_says_which(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Options, argv, prog="tiphys-test")
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_help_names_flags_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Options, ["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "A service for tests." in out
    assert "--hostname-override" in out
    assert "(default 6443)" in out
    assert "100% TLS" in out


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h2m3.5s", 3723.5), ("300ms", 0.3), ("90", 90.0), ("0", 0.0), ("-1s", -1.0), ("1.5h", 5400.0)],
)
def test_duration_in_go_form(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1x", "1m foo", "1 m"])
def test_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)
