"""The resident service with flannel's network: when the runtime is told of it, and clearing up after a reboot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.flannel import wait_until
from tests.support.lan import Lan, Space
from tiphys.cni.v1 import cni_pb2, cni_pb2_grpc

pytestmark = pytest.mark.netns

_ENV = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.9.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


@dataclass
class Service:
    """A node whose resident service runs; the flannel service is the test."""

    lan: Lan
    node: Space
    folder: Path

    @property
    def conflist(self) -> Path:
        return self.folder / "net.d" / "10-tiphys.conflist"

    @property
    def subnet_file(self) -> Path:
        return self.folder / "run" / "subnet.env"

    def write_subnet(self, text: str = _ENV) -> None:
        fresh = self.subnet_file.with_name(".fresh")
        fresh.write_text(text)
        fresh.replace(self.subnet_file)

    def wait_conflist(self, since: int = 0) -> None:
        def is_new() -> bool:
            return self.conflist.exists() and self.conflist.stat().st_ino != since

        wait_until(is_new, timeout_s=10, what="the configuration list")

    def add(self, container: str, **runtime: Any) -> dict[str, Any]:
        """What a runtime does: the chain, each plugin with the result of the one before."""
        space = self.lan.space(container)
        network = json.loads(self.conflist.read_text())
        result: dict[str, Any] = {}
        for plugin in network["plugins"]:
            conf = {**plugin, "cniVersion": network["cniVersion"], "name": network["name"], "runtimeConfig": runtime}
            if result:
                conf["prevResult"] = result
            environment = {
                "PATH": os.environ["PATH"],
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": container,
                "CNI_NETNS": space.path,
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(self.folder / "bin"),
            }
            command = self.node.enter(str(self.folder / "bin" / plugin["type"]))
            done = subprocess.run(
                command, input=json.dumps(conf).encode(), env=environment, capture_output=True, timeout=30, check=False
            )
            result = json.loads(done.stdout)
            assert done.returncode == 0, result
        return result


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "net.d").mkdir()
    (tmp_path / "net.d" / "10-tiphys.conflist").write_text('{"of": "a life before"}')
    with Lan("cf") as lan:
        made = Service(lan, lan.node("n", 11), tmp_path)
        command = made.node.enter(
            sys.executable,
            "-m",
            "tiphys_cni",
            "--network=flannel",
            f"--subnet-file={made.subnet_file}",
            f"--socket={tmp_path / 'cni.sock'}",
            f"--bin-dir={tmp_path / 'bin'}",
            f"--conf-dir={tmp_path / 'net.d'}",
            f"--data-dir={tmp_path / 'state'}",
        )
        with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                wait_until((tmp_path / "cni.sock").exists, timeout_s=20, what="the service")
                wait_until(made.subnet_file.parent.exists, timeout_s=5, what="the folder")
                yield made
            finally:
                process.send_signal(signal.SIGKILL)


def test_configuration_comes_with_the_subnet_and_anew_when_that_changes(service: Service) -> None:
    wait_until(lambda: not service.conflist.exists(), timeout_s=5, what="the stale configuration to go")
    service.write_subnet("FLANNEL_NETWORK=rubbish\n")
    service.write_subnet()
    service.wait_conflist()
    network = json.loads(service.conflist.read_text())
    assert [plugin["type"] for plugin in network["plugins"]] == ["flannel", "portmap"]
    assert network["plugins"][1] == {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    before = service.conflist.stat().st_ino
    service.write_subnet(_ENV.replace("10.244.9.1", "10.244.8.1"))
    service.wait_conflist(since=before)
    assert service.add("cfc1")["ips"][0]["address"] == "10.244.8.2/24"


def test_chain_gives_address_and_host_port_and_garbage_is_collected(service: Service) -> None:
    service.write_subnet()
    service.wait_conflist()
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    first, second = service.add("cfc1", portMappings=ports), service.add("cfc2")
    assert [result["ips"][0]["address"] for result in (first, second)] == ["10.244.9.2/24", "10.244.9.3/24"]
    kept = service.folder / "flannel"
    assert sorted(os.listdir(kept)) == ["cfc1:eth0", "cfc2:eth0"]
    with grpc.insecure_channel(
        f"unix:{service.folder / 'cni-grpc.sock'}", options=[("grpc.default_authority", "localhost")]
    ) as channel:
        stub = cni_pb2_grpc.CniServiceStub(channel)
        valid = [cni_pb2.Attachment(container_id="cfc2", ifname="eth0")]
        request = cni_pb2.CollectGarbageRequest(network="tiphys", valid=valid)
        for removed in (1, 0):
            assert stub.CollectGarbage(request, timeout=10).removed == removed
        left = stub.ListAttachments(cni_pb2.ListAttachmentsRequest(), timeout=5).attachments
    assert [one.container_id for one in left] == ["cfc2"]
    assert os.listdir(kept) == ["cfc2:eth0"]
    assert "8080" not in service.node.run("nft", "list", "ruleset")
    assert [name for name in os.listdir(service.folder / "state" / "tiphys") if name.startswith("10.")] == [
        "10.244.9.3"
    ]
