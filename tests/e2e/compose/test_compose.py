"""docker-compose.yml, by an engine that the tests start themselves: two nodes, pods between them, restarts, the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e.cluster import KUBECTLS, ROOT, VERSIONS, eventually, run
from tests.e2e.compose.engine import Engine

pytestmark = [pytest.mark.compose, pytest.mark.netns, pytest.mark.containerd, pytest.mark.etcd]
PODS = Path(__file__).with_name("pods.yaml")
FILE = ROOT / "docker-compose.yml"
COMMON = {"tiphys", "tiphys_component", "tiphys_apimachinery", "tiphys_client"}
ROOMS = {
    "certificates": COMMON | {"tiphys_cluster"},
    "apiserver": COMMON | {"tiphys_apiserver"},
    "controller-manager": COMMON | {"tiphys_controller_manager"},
    "scheduler": COMMON | {"tiphys_scheduler"},
    "cluster-dns": COMMON | {"tiphys_cluster_dns"},
    "node-1": COMMON
    | {"tiphys_sdk", "tiphys_cri", "tiphys_cni", "tiphys_kubelet", "tiphys_kube_proxy", "tiphys_cluster"},
}
_PID_OF = """
import pathlib, sys
for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
    if comm.read_text().strip() == sys.argv[1]:
        print(comm.parent.name)
"""


@dataclass(frozen=True)
class Compose:
    """The project of docker-compose.yml on an engine."""

    engine: Engine
    home: Path
    started_in_s: float = 0.0

    def __call__(self, *arguments: str, timeout_s: float = 120.0) -> str:
        return compose(self.engine, self.home, *arguments, timeout_s=timeout_s)

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        binary = KUBECTLS / f"kubectl-{VERSIONS[-1]}"
        kubeconfig = f"--kubeconfig={self.home / 'admin.conf'}"
        return run(*self.engine.inside, binary, kubeconfig, *arguments, check=check, timeout_s=60)

    def ready_nodes(self) -> set[str]:
        lines = self.kubectl("get", "nodes", "--no-headers", check=False).splitlines()
        return {line.split()[0] for line in lines if line.split()[1:2] == ["Ready"]}

    def visit(self, visitor: str, address: str) -> str:
        # No -T: Debian's static wget crashes with it.
        return self.kubectl(
            "exec", visitor, "--", "timeout", "5", "wget", "-q", "-O", "-", f"http://{address}/"
        ).strip()

    def ip_of(self, pod: str) -> str:
        return self.kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")

    def pid_of(self, service: str, process: str) -> str:
        return self("exec", "-T", service, "python", "-c", _PID_OF, process).strip()


def compose(
    engine: Engine, home: Path, *arguments: str, timeout_s: float = 120.0, files: tuple[Path, ...] = (FILE,)
) -> str:
    named = [word for file in files for word in ("-f", str(file))]
    variables = [f"{name}={engine.environment[name]}" for name in ("DOCKER_HOST", "COMPOSE_DOCKER_CLI_BUILD")]
    command = ("env", *variables, f"TIPHYS_HOME={home}", "docker-compose", "-p", "tiphys", *named, *arguments)
    return run(*command, timeout_s=timeout_s)


def with_the_machines_network(folder: Path) -> Path:
    """A file beside docker-compose.yml that has the images built with the network of the machine."""
    services = yaml.safe_load(FILE.read_text())["services"]
    builds = {name: {"build": {**service["build"], "network": "host"}} for name, service in services.items()}
    for service in builds.values():
        service["build"]["context"] = str(ROOT / service["build"]["context"])
    path = folder / "build.yml"
    path.write_text(yaml.safe_dump({"version": "3.9", "services": builds}))
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The images built, and the project up with two nodes Ready."""
    folder = tmp_path_factory.mktemp("compose")
    engine, home = Engine(f"tphc{os.getpid() % 100000}"), folder / "home"
    try:
        engine.start_to_build()
        engine.import_base_images()
        compose(engine, home, "build", files=(FILE, with_the_machines_network(folder)), timeout_s=1200)
        engine.stop()
        engine.start_to_run()
        begin, found = time.monotonic(), Compose(engine, home)
        found("up", "--detach", "--no-build")
        eventually(lambda: found.ready_nodes() == {"node-1", "node-2"}, timeout_s=120)
        started = Compose(engine, home, time.monotonic() - begin)
        started.kubectl("apply", "-f", str(PODS))
        started.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=50s")
        yield started
    finally:
        if engine.process is not None and engine.process.poll() is None:
            compose(engine, home, "down", "--volumes", "--remove-orphans")
        engine.close()


def test_L13_two_nodes_are_ready_soon_after_up(project: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        line = f"docker-compose up, images built, to two Ready nodes: {project.started_in_s:.1f} s (to reach: 20 s)"
        os.write(2, f"\n{line}\n".encode())
    assert project.ready_nodes() == {"node-1", "node-2"}


@pytest.mark.parametrize(("visitor", "web"), [("visitor-1", "web-2"), ("visitor-2", "web-1"), ("visitor-1", "web-1")])
def test_F12_pods_reach_each_other_across_the_nodes(project: Compose, visitor: str, web: str) -> None:
    assert project.visit(visitor, f"{project.ip_of(web)}:8080") == f"{web} 1"


@pytest.mark.parametrize("visitor", ["visitor-1", "visitor-2"])
def test_service_is_answered_from_both_nodes_by_its_name(project: Compose, visitor: str) -> None:
    answers = set[str]()

    def asked_enough() -> bool:
        answers.add(project.visit(visitor, "web"))
        return answers == {"web-1 1", "web-2 1"}

    eventually(asked_enough, timeout_s=20)


def test_L10_every_service_is_a_container_that_says_it_is_healthy(project: Compose) -> None:
    def health() -> set[str]:
        ids = project("ps", "-q").split()
        names = project.engine.docker(
            "inspect", "--format", "{{.Name}} {{if .State.Health}}{{.State.Health.Status}}{{end}}", *ids
        )
        return {name for line in names.splitlines() for name, _, state in [line.partition(" ")] if state == "healthy"}

    wanted = {"etcd", "apiserver", "controller-manager", "scheduler", "cluster-dns", "node-1", "node-2"}
    eventually(lambda: health() == {f"/tiphys_{name}_1" for name in wanted}, timeout_s=60)


@pytest.mark.parametrize("service", sorted(ROOMS))
def test_image_holds_its_own_rooms_and_those_they_import(project: Compose, service: str) -> None:
    image = yaml.safe_load(FILE.read_text())["services"].get(service, {}).get("image", "tiphys/node")
    listing = (
        "run",
        "--rm",
        "--network=none",
        "--entrypoint=sh",
        image,
        "-c",
        "ls /opt/tiphys/lib/python3*/site-packages",
    )
    found = {name for name in project.engine.docker(*listing).split() if name.startswith("tiphys")}
    assert {name for name in found if not name.endswith(".dist-info")} == ROOMS[service]


def test_A1_services_other_than_the_api_server_have_no_certificate_for_the_store(project: Compose) -> None:
    for service in ("controller-manager", "scheduler", "cluster-dns", "node-1"):
        assert "etcd" not in project("exec", "-T", service, "ls", "/pki")


def test_process_of_a_node_that_is_killed_is_started_again(project: Compose) -> None:
    before = project.pid_of("node-1", "kubelet")
    assert before
    project("exec", "-T", "node-1", "sh", "-c", f"kill -9 {before}")
    eventually(lambda: project.pid_of("node-1", "kubelet") not in ("", before), timeout_s=20)
    assert project.visit("visitor-1", f"{project.ip_of('web-2')}:8080") == "web-2 1"


def test_L21_restart_keeps_data_and_pods_run_again(project: Compose) -> None:
    project.kubectl("create", "configmap", "kept", "--from-literal=word=tiphys")
    uid = project.kubectl("get", "pod", "web-1", "-o", "jsonpath={.metadata.uid}")
    project("restart", timeout_s=180)
    read = ("get", "configmap", "kept", "-o", "jsonpath={.data.word}")
    eventually(lambda: project.kubectl(*read) == "tiphys", timeout_s=60)
    assert project.kubectl("get", "pod", "web-1", "-o", "jsonpath={.metadata.uid}") == uid
    counts = ("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}")
    eventually(lambda: project.kubectl(*counts).split() == ["1"] * 4, timeout_s=90)
    project.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=50s")
    eventually(lambda: project.visit("visitor-2", f"{project.ip_of('web-1')}:8080") == "web-1 1", timeout_s=60)


def test_down_leaves_nothing(project: Compose) -> None:
    project("down", "--volumes")
    listings = (
        ("ps", "--all", "--quiet"),
        ("volume", "ls", "--quiet"),
        ("network", "ls", "--quiet", "--filter=name=tiphys"),
    )
    assert [project.engine.docker(*listing).split() for listing in listings] == [[], [], []]
