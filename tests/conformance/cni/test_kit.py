"""The kit on plugins of ours, of Debian's, of the documentation, and on ones that are broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance.cni.documented import FAULTS, write_plugin
from tests.integration.cni.harness import open_node
from tiphys_cni.conflist import bridge_network
from tiphys_cni.install import install
from tiphys_component.clock import SystemClock
from tiphys_sdk.conformance.bench import Bench, Report
from tiphys_sdk.conformance.cni import kit

pytestmark = pytest.mark.netns

DEBIAN = Path("/usr/lib/cni")
# Without IPv6 its CHECK looks for the IPv4 rules in ip6tables, where they never are.
KNOWN_FAULTS = {"portmap": ("CHECK 0.4.0", "CHECK 1.0.0")}
IPAM = {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.201.0.0/24"}]]}}
OURS = ["loopback", "bridge", "host-local", "portmap"]


async def report_on(endpoint: Path, options: Mapping[str, str] | None = None, known: tuple[str, ...] = ()) -> Report:
    bench, before = Bench(SystemClock(), known), namespaces()
    await kit.run(str(endpoint), bench, options or {})
    assert namespaces() == before, "the kit takes away what it made, whatever the plugin did"
    return bench.report


def namespaces() -> set[str]:
    return {file.name for file in Path("/run/netns").glob("*")}


def failures(report: Report) -> dict[str, str]:
    return {step.name: step.message for step in report.failures}


@pytest.mark.parametrize("name", OURS)
async def test_L25_our_plugins_pass_without_their_service(tmp_path: Path, name: str) -> None:
    install(tmp_path, str(tmp_path / "absent.sock"))

    # Each call starts Python here; with the service all versions are gone through.
    report = await report_on(tmp_path / name, {"strict": "true", "versions": "1.0.0,1.1.0"})

    assert failures(report) == {}
    assert {"GC", "STATUS", "CHECK 1.1.0", "killed in the middle"} <= {s.name for s in report.steps if not s.message}


@pytest.mark.parametrize("name", OURS)
async def test_L25_our_plugins_pass_with_their_service(tmp_path: Path, name: str) -> None:
    with open_node("compiled", tmp_path) as node:
        report = await report_on(tmp_path / "bin" / name, {"strict": "true", "node": node.name})

    assert failures(report) == {}
    assert report.passed


@pytest.mark.parametrize("masquerade", [True, False], ids=["masquerading", "plain"])
async def test_L25_the_chain_of_a_node_passes(tmp_path: Path, masquerade: bool) -> None:
    install(tmp_path, str(tmp_path / "absent.sock"))
    conf = json.loads(json.dumps(bridge_network("10.201.0.0/24")))
    conf["plugins"][0]["ipMasq"] = masquerade
    # One host port can't be eight containers' at once.
    del conf["plugins"][1]["capabilities"]
    path = tmp_path / "10-tiphys.conflist"
    path.write_text(json.dumps(conf | {"cniVersion": "1.1.0"}))

    report = await report_on(path, {"bin-dir": str(tmp_path)})

    assert failures(report) == {}
    assert report.passed


@pytest.mark.parametrize(
    "name",
    ["loopback", "bridge", "ptp", "macvlan", "host-local", "static", "portmap", "tuning", "firewall", "bandwidth"],
)
async def test_F18_reference_plugins_run_unchanged_and_pass(name: str) -> None:
    report = await report_on(DEBIAN / name, known=KNOWN_FAULTS.get(name, ()))

    assert failures(report) == {}
    assert report.passed


async def test_F18_a_chain_of_reference_plugins_passes(tmp_path: Path) -> None:
    plugins = [{"type": "bridge", "bridge": "kit1", "isGateway": True, **IPAM}, {"type": "tuning"}, {"type": "portmap"}]
    path = tmp_path / "theirs.conflist"
    path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "theirs", "plugins": plugins}))

    report = await report_on(path, {"bin-dir": str(DEBIAN)})

    assert failures(report) == {}
    assert "ADD 0.4.0" not in {step.name for step in report.steps}


# A fault shows in any version, but some steps are for some versions only.
_VERSIONS = {"ADD 0.4.0": "0.4.0", "GC": "1.0.0,1.1.0", "STATUS": "1.0.0,1.1.0"}


def prepare(folder: Path, fault: str = "") -> tuple[Path, dict[str, str]]:
    """The documented plugin beside our host-local, which knows GC and STATUS."""
    install(folder, str(folder / "absent.sock"), names=["host-local"])
    conf = folder / "wire.json"
    conf.write_text(json.dumps(IPAM))
    return write_plugin(folder, fault), {"conf": str(conf), "limit": "5"}


async def test_F18_the_documented_plugin_passes(tmp_path: Path) -> None:
    endpoint, options = prepare(tmp_path)

    report = await report_on(endpoint, options | {"strict": "true"})

    assert failures(report) == {}
    assert [step.name for step in report.steps if step.message] == []


@pytest.mark.parametrize(
    ("fault", "step", "word"),
    [
        ("says no versions", "VERSION", "supportedVersions is []"),
        ("takes any version", "unknown version", "it succeeded"),
        ("answers in one version", "ADD 0.4.0", "cniVersion is '1.1.0' where '0.4.0' was asked for"),
        ("says an address it did not set", "ADD 1.0.0", "10.201.0.250/24"),
        ("writes to standard output", "ADD 1.0.0", "no JSON: b'attaching"),
        ("hangs", "DEL 1.0.0", "did not end within"),
        ("dies", "CHECK 1.0.0", "ended with -9"),
        ("keeps its interface", "DEL 1.0.0", "eth0 is still in the container"),
        ("keeps its address", "DEL 1.0.0", "addresses are still reserved"),
        ("fails to delete twice", "DEL twice 1.0.0", "no such attachment"),
        ("needs the namespace to delete", "DEL without namespace", "DEL ended with 1"),
        ("checks nothing", "CHECK finds damage", "it succeeded"),
        ("gives one address to all", "at once", "only 1 addresses"),
        ("collects what is in use", "GC", "CHECK ended with 1"),
        ("collects nothing", "GC", "one address is to be left"),
        ("is never ready", "STATUS", "not yet"),
        ("forgets a failed ADD", "failed ADD", "addresses are left"),
    ],
    ids=lambda value: value.replace(" ", "-") if value in FAULTS else "",
)
async def test_L25_a_broken_plugin_fails_at_its_fault(tmp_path: Path, fault: str, step: str, word: str) -> None:
    endpoint, options = prepare(tmp_path, fault)

    options |= {"versions": _VERSIONS.get(step, "1.0.0"), "kills": "0"}
    report = await report_on(endpoint, options | ({"limit": "2"} if fault == "hangs" else {}))

    assert not report.passed
    assert word in failures(report).get(step, ""), failures(report)
    assert next(s for s in report.steps if s.name == step).calls, "the failing step shows its calls"


@pytest.mark.parametrize(
    ("endpoint", "options", "word"),
    [
        ("/no/such/plugin", {}, "there is no /no/such/plugin"),
        (str(DEBIAN / "dhcp"), {}, "conf=FILE"),
        (str(DEBIAN / "bridge"), {"limit": "soon"}, "soon"),
        (str(DEBIAN / "bridge"), {"node": "nowhere"}, "nowhere"),
        (str(DEBIAN / "bridge"), {"colour": "red"}, "colour"),
    ],
    ids=["absent", "unknown", "limit", "node", "option"],
)
async def test_what_can_not_be_tested_is_told(endpoint: str, options: dict[str, str], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        await kit.run(endpoint, Bench(SystemClock()), options)
