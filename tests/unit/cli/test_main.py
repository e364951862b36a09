from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tiphys_cli.main import tiphys
from tiphys_cluster import claims
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import Settings


def call(*argv: str) -> Result:
    return CliRunner().invoke(tiphys, argv)


def test_help_lists_every_verb_with_a_line() -> None:
    text = call("--help").output

    for verb in ("up", "down", "status", "kubeconfig", "image", "plugin"):
        assert f"\n  {verb} " in text


@pytest.mark.parametrize("verb", ["up", "down", "status", "kubeconfig", "image", "plugin"])
def test_every_verb_has_help(verb: str) -> None:
    done = call(verb, "--help")

    assert done.exit_code == 0
    assert "Usage: tiphys" in done.output


@pytest.mark.parametrize("argv", [("status",), ("image", "load", __file__)], ids=["status", "image-load"])
def test_asking_what_is_not_up_says_how_to_start_it_and_ends_with_3(tmp_path: Path, argv: tuple[str, ...]) -> None:
    done = call(*argv, "--name", "absent", "--run-root", str(tmp_path))

    assert done.exit_code == 3
    assert "cluster 'absent' is not running" in done.stderr
    assert "tiphys up --name absent" in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("up", "--name", "No_Name"), "is not allowed"),
        (("up", "--name", "a", "--port-offset", "-5"), "port offset must be"),
        (("down", "--name", "../etc"), "is not allowed"),
    ],
    ids=["name", "offset", "path-as-name"],
)
def test_bad_arguments_are_refused_in_one_clear_message(tmp_path: Path, argv: tuple[str, ...], message: str) -> None:
    done = call(*argv, "--run-root", str(tmp_path), "--home", str(tmp_path / "home"))

    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("argv", [("fly",), ("up", "--fly"), ("up", "--store", "paper")], ids=["verb", "flag", "value"])
def test_wrong_usage_ends_with_2(argv: tuple[str, ...]) -> None:
    assert call(*argv).exit_code == 2


def test_up_against_the_store_that_the_home_holds_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "cluster.json").write_text(Settings("a").to_json())

    done = call("up", "--name", "a", "--home", str(home), "--store", "etcd", "--run-root", str(tmp_path / "run"))

    assert done.exit_code == 1
    assert "keeps its data in sqlite" in done.stderr
    assert not (tmp_path / "run" / "a").exists()


def test_kubeconfig_prints_the_content_or_the_path(tmp_path: Path) -> None:
    (tmp_path / "admin.conf").write_text("apiVersion: v1\n")
    where = ("--home", str(tmp_path), "--run-root", str(tmp_path / "run"))

    assert call("kubeconfig", *where).output == "apiVersion: v1\n"
    assert call("kubeconfig", "--path", *where).output == f"{tmp_path / 'admin.conf'}\n"


def test_kubeconfig_of_a_running_cluster_needs_its_name_only(tmp_path: Path) -> None:
    home, run = tmp_path / "home", tmp_path / "run"
    claims.write_claim(Layout("a", home, run), Settings("a"))

    assert call("kubeconfig", "--path", "--name", "a", "--run-root", str(run)).exit_code == 1
    home.mkdir()
    (home / "admin.conf").write_text("x")
    done = call("kubeconfig", "--path", "--name", "a", "--run-root", str(run))

    assert done.output == f"{home / 'admin.conf'}\n"


def test_status_of_a_cluster_without_supervisor_says_how_to_go_on(tmp_path: Path) -> None:
    claims.write_claim(Layout("a", tmp_path / "home", tmp_path), Settings("a"))

    done = call("status", "--name", "a", "--run-root", str(tmp_path))

    assert done.exit_code == 3
    assert "tiphys up --name a" in done.stderr
    assert "tiphys down --name a" in done.stderr


@pytest.mark.parametrize("argv", [("add",), ("remove", "node-1"), ("list",)], ids=["add", "remove", "list"])
def test_nodes_of_a_cluster_that_is_not_up_are_not_changed(tmp_path: Path, argv: tuple[str, ...]) -> None:
    done = call("node", *argv, "--name", "absent", "--run-root", str(tmp_path))

    # Who is not root is told that first.
    assert done.exit_code == (3 if os.geteuid() == 0 or argv == ("list",) else 1)
    assert "Traceback" not in done.stderr


def test_another_number_of_nodes_is_refused_with_the_way_to_change_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "cluster.json").write_text(Settings("a").to_json())

    done = call("up", "--name", "a", "--home", str(home), "--nodes", "3", "--run-root", str(tmp_path / "run"))

    assert done.exit_code == 1
    assert "tiphys node add --name a" in done.stderr
