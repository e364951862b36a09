from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from tiphys_cli import plugin
from tiphys_cli.main import tiphys
from tiphys_sdk.conformance.bench import Bench, Failure, check_options


def call(*argv: str) -> Result:
    return CliRunner().invoke(tiphys, ["plugin", "test", *argv])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """A kit named cni whose step fails where the option wrong is given; what it was run with."""
    found: list[tuple[str, dict[str, str]]] = []

    async def run(endpoint: str, bench: Bench, options: Mapping[str, str]) -> None:
        check_options(options, ("wrong", "mode"))
        found.append((endpoint, dict(options)))
        async with bench.step("add", "ADD gives a result"):
            bench.record("ADD", "[request]", "[answer]")
            if "wrong" in options:
                raise Failure("no [address] in it")
        async with bench.step("status", "STATUS answers"):
            bench.skip("older than 1.1")

    module = ModuleType("kit_of_test")
    vars(module)["run"] = run
    monkeypatch.setitem(sys.modules, "kit_of_test", module)
    monkeypatch.setattr(plugin, "KITS", {**plugin.KITS, "cni": "kit_of_test", "csi": "tiphys_sdk.conformance.nowhere"})
    return found


def test_plugin_that_passes_ends_with_0(seen: list[tuple[str, dict[str, str]]]) -> None:
    done = call("--kind", "cni", "/opt/cni/bin/x", "--option", "mode=a=b")

    assert done.exit_code == 0
    assert seen == [("/opt/cni/bin/x", {"mode": "a=b"})]
    assert "1 passed, 0 failed, 1 skipped" in done.output


def test_failing_step_is_shown_with_its_calls(seen: list[tuple[str, dict[str, str]]]) -> None:
    done = call("--kind", "cni", "/x", "--option", "wrong=1")

    assert done.exit_code == 1
    assert "failed add: no [address] in it" in done.output
    assert "ADD <- [request]" in done.output
    assert "    -> [answer]" in done.output


def test_report_as_json(seen: list[tuple[str, dict[str, str]]]) -> None:
    done = call("--kind", "cni", "/x", "-o", "json", "--option", "wrong=1")

    report = json.loads(done.output)
    assert (done.exit_code, report["passed"]) == (1, False)
    assert [(step["name"], step["outcome"]) for step in report["steps"]] == [("add", "failed"), ("status", "skipped")]


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("--kind", "csi", "/x"), "there is no kit for csi plugins"),
        (("--kind", "cni", "/x", "--option", "fast"), "NAME=VALUE"),
        (("--kind", "cni", "/x", "--option", "fast=1"), "--option fast: unknown"),
        (("--kind", "toaster", "/x"), "toaster"),
        (("/x",), "--kind"),
    ],
    ids=["no kit", "no value", "unknown option", "unknown kind", "no kind"],
)
def test_what_can_not_be_tested_ends_with_2(
    seen: list[tuple[str, dict[str, str]]], argv: tuple[str, ...], word: str
) -> None:
    done = call(*argv)

    assert (done.exit_code, word in done.stderr) == (2, True), done.stderr
