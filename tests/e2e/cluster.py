"""A real cluster for tests, started and stopped by the command that users type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests.support.ports import free_port_offset

ROOT = Path(__file__).resolve().parents[2]
TIPHYS = Path(sys.executable).with_name("tiphys")
MANIFESTS = Path(__file__).parent / "manifests"
KUBECTLS = ROOT / "build" / "kubectl"
VERSIONS = ("1.20", "1.32")
# Beyond every back-off: processes that were killed often wait 10 s, watches of a server that was away 30 s.
_PATIENCE_S = 180.0
T = TypeVar("T")


def run(*command: str | Path, timeout_s: float = 120.0, check: bool = True, stdin: str | None = None) -> str:
    """Runs a command and returns what it printed; on failure the assertion shows all of it."""
    done = subprocess.run(
        [str(c) for c in command], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    said = f"{done.stdout}{done.stderr}"
    assert not check or done.returncode == 0, f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{said}"
    return done.stdout if check else said


def eventually(look: Callable[[], T | Literal[False] | None], *, timeout_s: float = _PATIENCE_S) -> T:
    """The first true answer; looks again until the time is over. Assertions inside count as not yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = look()
            if found:
                return found
            problem: object = found
        except AssertionError as err:
            problem = err
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {problem}"
        subprocess.run(["sleep", "0.1"], check=True)


@dataclass(frozen=True)
class Kubectl:
    """One version of stock kubectl against one cluster."""

    binary: Path
    kubeconfig: Path

    def __call__(self, *arguments: str, check: bool = True, stdin: str | None = None, timeout_s: float = 120.0) -> str:
        """Runs kubectl."""
        command = (str(self.binary), f"--kubeconfig={self.kubeconfig}", *arguments)
        return run(*command, check=check, stdin=stdin, timeout_s=timeout_s)

    def json(self, *arguments: str) -> Any:
        """Runs kubectl with -o json."""
        return json.loads(self(*arguments, "-o", "json"))

    def popen(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Starts kubectl and lets it run."""
        command = [str(self.binary), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.Popen(command, text=True, **more)


@dataclass(frozen=True)
class Cluster:
    """A cluster by its name; ports are shifted so that it stands beside any other."""

    name: str
    home: Path
    store: str = "sqlite"
    port_offset: int = field(default_factory=free_port_offset)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.home / "admin.conf"

    def up(self, *arguments: str) -> str:
        """`tiphys up`; may be repeated."""
        return run(
            TIPHYS,
            "up",
            f"--name={self.name}",
            f"--home={self.home}",
            f"--port-offset={self.port_offset}",
            f"--store={self.store}",
            *arguments,
            timeout_s=180,
        )

    def down(self, *, delete: bool = True) -> str:
        """`tiphys down`; may be repeated."""
        return run(TIPHYS, "down", f"--name={self.name}", *(["--delete"] if delete else []), timeout_s=120)

    def node(self, verb: str, *arguments: str) -> str:
        """`tiphys node add` or another verb of nodes."""
        return run(TIPHYS, "node", verb, *arguments, f"--name={self.name}", timeout_s=180)

    def inside(self, node: str, *command: str) -> str:
        """What a command says in a node's namespaces; node "switch" is the switch between them."""
        namespaces = Path("/run/tiphys", self.name, "ns")
        mounts = [] if node == "switch" else [f"--mount={namespaces / node}.mnt"]
        return run("nsenter", f"--net={namespaces / node}.net", *mounts, *command)

    def status(self) -> str:
        """`tiphys status`."""
        return run(TIPHYS, "status", f"--name={self.name}", check=False)

    def kubectl(self, version: str = VERSIONS[-1]) -> Kubectl:
        """One of the two kubectls that hack/fetch-kubectl brings."""
        binary = KUBECTLS / f"kubectl-{version}"
        assert binary.exists(), f"{binary} is missing: run hack/fetch-kubectl build/kubectl"
        return Kubectl(binary, self.kubeconfig)


def unique_name(prefix: str) -> str:
    """A cluster name of this process alone."""
    return f"{prefix}{os.getpid() % 100000}"
