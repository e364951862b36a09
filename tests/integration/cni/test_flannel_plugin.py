"""The flannel executable: hands on to bridge, keeps what it handed on, and says when there is no subnet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cni.harness import KINDS, Node, open_node, sh

pytestmark = pytest.mark.netns

_ENV = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.9.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


@pytest.fixture(params=KINDS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with open_node(request.param, tmp_path) as found:
        (tmp_path / "subnet.env").write_text(_ENV)
        yield found


def conf(node: Node, **extra: Any) -> dict[str, Any]:
    base = {
        "cniVersion": "1.1.0",
        "name": "test",
        "type": "flannel",
        "subnetFile": str(node.folder / "subnet.env"),
        "dataDir": str(node.folder / "flannel"),
        "ipam": {"dataDir": str(node.folder / "data")},
        "delegate": {"isDefaultGateway": True, "hairpinMode": True},
    }
    return {**base, **extra}


def kept(node: Node) -> list[str]:
    return sorted(os.listdir(node.folder / "flannel"))


def addresses(node: Node) -> list[str]:
    return sorted(name for name in os.listdir(node.folder / "data" / "test") if name.startswith("10."))


def test_F17_pod_gets_address_mtu_and_routes_of_the_subnet_on_cni0(node: Node) -> None:
    container = node.container()
    code, result = node.call("ADD", "flannel", container, conf(node))
    assert code == 0, result
    assert result["ips"][0] == {"interface": 2, "address": "10.244.9.2/24", "gateway": "10.244.9.1"}
    assert "mtu 1450" in sh("ip", "-n", container, "link", "show", "eth0")
    routes = sh("ip", "-n", container, "route")
    assert "default via 10.244.9.1" in routes
    assert "10.244.0.0/16 via 10.244.9.1" in routes
    assert "10.244.9.1/24" in sh("ip", "-n", node.name, "addr", "show", "cni0")
    # flannel masquerades for all nodes, so that the bridge must not.
    assert "masquerade" not in sh("nsenter", f"--net=/run/netns/{node.name}", "nft", "list", "ruleset")
    assert kept(node) == [f"{container}:eth0"]
    assert node.call("CHECK", "flannel", container, conf(node, prevResult=result)) == (0, {})


def test_delete_works_when_the_subnet_file_is_gone_and_succeeds_twice(node: Node) -> None:
    container = node.container()
    assert node.call("ADD", "flannel", container, conf(node))[0] == 0
    (node.folder / "subnet.env").unlink()
    for _ in range(2):
        assert node.call("DEL", "flannel", container, conf(node)) == (0, {})
    assert kept(node) == []
    assert addresses(node) == []
    assert "eth0" not in sh("ip", "-n", container, "link")


def test_delete_takes_what_the_reference_plugin_kept(node: Node) -> None:
    container = node.container()
    assert node.call("ADD", "flannel", container, conf(node))[0] == 0
    folder = node.folder / "flannel"
    (folder / f"{container}:eth0").rename(folder / container)
    (node.folder / "subnet.env").unlink()
    assert node.call("DEL", "flannel", container, conf(node)) == (0, {})
    assert (kept(node), addresses(node)) == ([], [])


def test_delete_of_an_attachment_that_bridge_made_by_itself(node: Node) -> None:
    container = node.container()
    own = {**node.conf(), "cniVersion": "1.1.0"}
    own["ipam"]["ranges"] = [[{"subnet": "10.244.9.0/24"}]]
    assert node.call("ADD", "bridge", container, own)[0] == 0
    assert node.call("DEL", "flannel", container, conf(node)) == (0, {})
    assert addresses(node) == []


@pytest.mark.parametrize("left", ["", "{", "[]", '{"type": 7}'], ids=["nothing", "half", "a list", "no type"])
def test_delete_works_with_what_a_power_cut_left(node: Node, left: str) -> None:
    container = node.container()
    assert node.call("ADD", "flannel", container, conf(node))[0] == 0
    (node.folder / "flannel" / f"{container}:eth0").write_text(left)
    for _ in range(2):
        assert node.call("DEL", "flannel", container, conf(node)) == (0, {})
    assert (kept(node), addresses(node)) == ([], [])


def test_without_a_subnet_add_asks_to_try_again_and_status_says_not_available(node: Node) -> None:
    (node.folder / "subnet.env").unlink()
    container = node.container()
    code, error = node.call("ADD", "flannel", container, conf(node))
    assert (code, error["code"]) == (1, 11)
    assert "subnet.env is missing" in error["msg"]
    code, error = node.call("STATUS", "flannel", container, conf(node))
    assert (code, error["code"]) == (1, 50)
    (node.folder / "subnet.env").write_text(_ENV)
    assert node.call("STATUS", "flannel", container, conf(node)) == (0, {})
    code, versions = node.call("VERSION", "flannel", container, conf(node))
    assert (code, versions["supportedVersions"][-1]) == (0, "1.1.0")


def test_failed_add_keeps_nothing(node: Node) -> None:
    container = node.container()
    code, _ = node.call("ADD", "flannel", container, conf(node, delegate={"type": "absent"}))
    assert (code, kept(node)) == (1, [])
    assert node.call("DEL", "flannel", container, conf(node, delegate={"type": "absent"})) == (0, {})


def test_second_add_is_refused_and_keeps_the_first(node: Node) -> None:
    container = node.container()
    assert node.call("ADD", "flannel", container, conf(node))[0] == 0
    assert node.call("ADD", "flannel", container, conf(node))[0] == 1
    assert kept(node) == [f"{container}:eth0"]
    assert addresses(node) == ["10.244.9.2"]


def test_gc_detaches_who_is_not_valid(node: Node) -> None:
    first, second = node.container(), node.container()
    for container in (first, second):
        assert node.call("ADD", "flannel", container, conf(node))[0] == 0
    valid = [{"containerID": second, "ifname": "eth0"}]
    for _ in range(2):
        assert node.call("GC", "flannel", first, conf(node, **{"cni.dev/valid-attachments": valid})) == (0, {})
    assert kept(node) == [f"{second}:eth0"]
    assert addresses(node) == ["10.244.9.3"]


def test_check_without_anything_kept_fails(node: Node) -> None:
    container = node.container()
    _, result = node.call("ADD", "flannel", container, conf(node))
    (node.folder / "flannel" / f"{container}:eth0").unlink()
    code, error = node.call("CHECK", "flannel", container, conf(node, prevResult=result))
    assert (code, error["code"]) == (1, 102)


def test_own_masquerading_of_the_delegate_where_flannel_has_none(node: Node) -> None:
    (node.folder / "subnet.env").write_text(_ENV.replace("IPMASQ=true", "IPMASQ=false"))
    container = node.container()
    assert node.call("ADD", "flannel", container, conf(node))[0] == 0
    saved = json.loads((node.folder / "flannel" / f"{container}:eth0").read_text())
    assert (saved["ipMasq"], saved["mtu"]) == (True, 1450)
