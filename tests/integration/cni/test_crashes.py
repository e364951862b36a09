"""Processes killed in the middle of their work, and nodes that boot again and again: nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cni.harness import Node, open_node, sh
from tests.integration.cni.test_portmap import elements, mapping, portmap_conf

pytestmark = pytest.mark.netns

# Does one call in a process that is killed right after the named function has done its work.
_KILLED = """
import importlib, os, signal, sys
module, _, name = sys.argv[1].rpartition(".")
owner, _, holder = module.partition(":")
where = importlib.import_module(owner)
where = getattr(where, holder) if holder else where
right = getattr(where, name)
def killed(*arguments, **named):
    right(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(where, name, killed)
from tiphys_cni.registry import PLUGINS
from tiphys_sdk.cni.serve import serve
serve(PLUGINS[sys.argv[2]])
"""
BRIDGE_STEPS = {
    "bridge made": "tiphys_cni.main.bridge.ensure_bridge",
    "address reserved": "tiphys_cni.ipam.store:Store.reserve",
    "veth made": "tiphys_cni.netlink:RouteSocket.create_veth",
    "alias set": "tiphys_cni.netlink:RouteSocket.set_alias",
    "gateway set": "tiphys_cni.main.bridge._ensure_gateways",
    "container configured": "tiphys_cni.main.bridge._configure",
    "masquerading written": "tiphys_cni.main.bridge._ensure_masquerading",
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with open_node("standalone", tmp_path) as found:
        sh("ip", "-n", found.name, "link", "set", "lo", "up")
        yield found


def call_killed(node: Node, plugin: str, container: str, conf: dict[str, Any], *, after: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": container,
        "CNI_NETNS": f"/run/netns/{container}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(node.folder / "bin"),
    }
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{node.name}", sys.executable, "-c", _KILLED, after, plugin],
        input=json.dumps(conf).encode(),
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == -9, done.stdout + done.stderr


def reserved(node: Node) -> list[str]:
    return sorted(path.name for path in (node.folder / "data").rglob("10.*"))


def host_ends(node: Node) -> int:
    return sh("ip", "-n", node.name, "link").count("master cni0")


@pytest.mark.parametrize("step", BRIDGE_STEPS.values(), ids=BRIDGE_STEPS)
def test_kill_in_the_middle_of_add_leaks_nothing(node: Node, step: str) -> None:
    container = node.container()

    call_killed(node, "bridge", container, node.conf(), after=step)

    assert node.call("DEL", "bridge", container, node.conf()) == (0, {})
    assert (reserved(node), host_ends(node)) == ([], 0)
    code, result = node.call("ADD", "bridge", container, node.conf())
    assert code == 0, result
    assert (len(reserved(node)), host_ends(node)) == (1, 1)
    assert node.call("CHECK", "bridge", container, node.conf(prevResult=result)) == (0, {})


def test_kill_after_the_reservation_is_cleared_without_the_runtime(node: Node) -> None:
    """A runtime that lost its own state, too, sends no DEL."""
    container = node.container()
    call_killed(node, "bridge", container, node.conf(), after=BRIDGE_STEPS["address reserved"])
    assert len(reserved(node)) == 1

    conf = node.conf(cniVersion="1.1.0", **{"cni.dev/valid-attachments": []})
    assert node.call("GC", "bridge", "", conf) == (0, {})

    assert reserved(node) == []


def test_kill_after_the_host_ports_were_written_leaks_nothing(node: Node) -> None:
    container = node.container()
    _, result = node.call("ADD", "bridge", container, node.conf())
    conf = portmap_conf(mapping(8080), prevResult=result)

    call_killed(node, "portmap", container, conf, after="tiphys_cni.hostports.ensure")

    assert len(elements(node)) == 3
    assert node.call("ADD", "portmap", container, conf)[0] == 0
    assert len(elements(node)) == 3
    assert node.call("DEL", "portmap", container, conf) == (0, {})
    assert elements(node) == []


_FREE = """
import json, sys
from tiphys_cni.garbage import free, kept
from tiphys_cni.turns import Turns
from tiphys_sdk.cni.conf import Attachment
network, gone = json.loads(sys.argv[1]), [Attachment(one, "eth0") for one in json.loads(sys.argv[2])]
removed = free(network, gone, Turns())
print(json.dumps([removed, sorted(one.container_id for one in kept(network))]))
"""


def test_what_is_named_as_gone_is_freed_and_nothing_else(node: Node) -> None:
    kept, gone, half = node.container(), node.container(), node.container()
    for container, port in ((kept, 8080), (gone, 8081)):
        _, result = node.call("ADD", "bridge", container, node.conf())
        assert node.call("ADD", "portmap", container, portmap_conf(mapping(port), prevResult=result))[0] == 0
    call_killed(node, "bridge", half, node.conf(), after=BRIDGE_STEPS["address reserved"])
    network = {"name": "test", "plugins": [node.conf(), {"type": "portmap"}]}

    names = json.dumps([gone, half, "never-was-here"])
    command = ["nsenter", f"--net=/run/netns/{node.name}", sys.executable, "-c", _FREE, json.dumps(network), names]

    assert json.loads(sh(*command)) == [2, [kept]]
    assert (reserved(node), host_ends(node)) == (["10.77.0.2"], 1)
    assert set(elements(node)) == {f"test/{kept} eth0"}


_BOOTS = """
import json, os, sys
from tiphys_cni.registry import PLUGINS
from tiphys_sdk.cni.skel import run
bridge, portmap, boots = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
def call(plugin, verb, container, conf):
    path = f"/run/netns/{container}"
    environment = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": path, "CNI_IFNAME": "eth0"}
    environment["CNI_PATH"] = "/nowhere"
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        fd = -1
    answer = run(PLUGINS[plugin], environment, json.dumps(conf).encode(), fd)
    if fd >= 0:
        os.close(fd)
    assert answer.exit_code == 0, (verb, answer)
    return json.loads(answer.stdout or b"{}")
before = []
for boot in range(boots):
    now = [f"{sys.argv[4]}b{boot}n{number}" for number in range(3)]
    for number, container in enumerate(now):
        os.system(f"ip netns add {container}")
        made = call("bridge", "ADD", container, bridge)
        port = {"portMappings": [{"hostPort": 8000 + number, "containerPort": 80}]}
        call("portmap", "ADD", container, portmap | {"prevResult": made, "runtimeConfig": port})
    # The power goes: namespaces and rules are no more, what is on disk stays. Then the runtime clears up what it still
    # knows of, which is all but one container.
    for container in now:
        os.system(f"ip netns del {container}")
    os.system("nft flush ruleset; ip link del cni0")
    for container in now[:2]:
        call("portmap", "DEL", container, portmap)
        call("bridge", "DEL", container, bridge)
    valid = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    call("portmap", "GC", "", portmap | valid)
    call("bridge", "GC", "", bridge | valid)
print("done")
"""


def test_F20_fifty_reboots_leave_no_address_no_interface_and_no_rule(node: Node) -> None:
    bridge, portmap = json.dumps(node.conf()), json.dumps(portmap_conf())
    program = [sys.executable, "-c", _BOOTS, bridge, portmap, "50", node.name]

    assert sh("nsenter", f"--net=/run/netns/{node.name}", *program).strip() == "done"

    assert reserved(node) == []
    assert elements(node) == []
    assert [name for name in sh("ip", "-n", node.name, "-o", "link").splitlines() if "veth" in name] == []


def test_F19_254th_container_of_a_24_is_told_that_no_address_is_left(node: Node) -> None:
    """253 pods: of 254 usable addresses one is the gateway's."""
    conf = node.conf()
    program = """
import json, sys
from tiphys_cni.registry import PLUGINS
from tiphys_sdk.cni.skel import run
given = set()
for number in range(254):
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"c{number}", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0"}
    answer = run(PLUGINS["host-local"], environment | {"CNI_PATH": "/p"}, sys.argv[1].encode(), -1)
    if answer.exit_code:
        print(len(given), answer.stdout.decode())
        break
    given.add(json.loads(answer.stdout)["ips"][0]["address"])
"""
    said = sh(sys.executable, "-c", program, json.dumps(conf))

    count, _, error = said.partition(" ")
    assert count == "253"
    assert json.loads(error)["msg"] == "no IP addresses left in range 10.77.0.1-10.77.0.254"
    assert json.loads(error)["code"] == 101
    code, told = node.call("STATUS", "host-local", "", conf | {"cniVersion": "1.1.0"})
    assert (code, told["code"]) == (1, 101)


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("#!/bin/sh\nsleep 600 & sleep 600\n", 11, "did not end within"),
        ("#!/bin/sh\necho not json\n", 6, "'not json'"),
        ("#!/bin/sh\necho '[1]'\n", 6, "[1]"),
        ("#!/bin/sh\nkill -9 $$\n", 5, "signal 9"),
        ("#!/bin/sh\necho broken >&2; exit 3\n", 5, "ended with 3"),
        ("#!/bin/sh\nyes | head -c 9000000; sleep 1\n", 6, "wrote more than"),
        ('#!/bin/sh\necho \'{"code": 110, "msg": "no lease"}\'; exit 1\n', 110, "no lease"),
        ('#!/bin/sh\necho \'{"cniVersion": "1.0.0", "ips": []}\'\n', 7, "no address"),
        ("not a program", 5, "can't be run"),
        ("", 7, "is not in"),
    ],
    ids=["hangs", "garbage", "list", "dies", "fails", "floods", "tells", "gives nothing", "no program", "absent"],
)
def test_delegate_that_misbehaves_is_told_and_leaves_nothing(node: Node, text: str, code: int, word: str) -> None:
    if text:
        path = node.folder / "bin" / "fickle"
        path.write_text(text)
        path.chmod(0o755)
    program = (
        "import tiphys_sdk.cni.delegate as d; d.delegate.__kwdefaults__['timeout_s'] = 0.3\n"
        "from tiphys_cni.main.bridge import PLUGIN; from tiphys_sdk.cni.serve import serve; serve(PLUGIN)"
    )
    container = node.container()
    environment = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": container,
        "CNI_NETNS": f"/run/netns/{container}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(node.folder / "bin"),
    }
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{node.name}", sys.executable, "-c", program],
        input=json.dumps(node.conf(ipam={"type": "fickle"})).encode(),
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    error = json.loads(done.stdout)
    assert (done.returncode, error["code"], word in error["msg"] + error.get("details", "")) == (1, code, True), error
    assert host_ends(node) == 0
