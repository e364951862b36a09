"""A real etcd of a test's own: one member or several on free ports, the data in a folder that goes away."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.ports import free_port


class EtcdMember:
    """An etcd process that can be killed and started again over the same data."""

    def __init__(self, folder: Path, *, binary: str = "etcd", name: str = "test") -> None:
        found = shutil.which(binary)
        if found is None:
            raise FileNotFoundError(f"{binary} is not installed; apt-get install etcd-server")
        self._binary = found
        self._folder = folder
        self.name = name
        self._client_port, self._peer_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._cluster = f"{name}={self._peer}"

    @classmethod
    def cluster(cls, folder: Path, size: int) -> list[EtcdMember]:
        """So many members of one cluster, started and with a leader. Kill each at the end."""
        members = []
        for number in range(size):
            home = folder / f"member{number}"
            home.mkdir()
            members.append(cls(home, name=f"member{number}"))
        whole = ",".join(member._cluster for member in members)
        try:
            for member in members:
                member._cluster = whole
                member._spawn()
            for member in members:
                member._wait_healthy()
        except BaseException:
            for member in members:
                member.kill()
            raise
        return members

    @property
    def _peer(self) -> str:
        return f"http://127.0.0.1:{self._peer_port}"

    @property
    def is_leader(self) -> bool:
        """Whether it leads its cluster."""
        asked = urllib.request.Request(f"http://{self.endpoint}/v3/maintenance/status", data=b"{}")
        with urllib.request.urlopen(asked, timeout=5) as answer:
            status = json.loads(answer.read())
        return bool(status["leader"] == status["header"]["member_id"])

    @property
    def endpoint(self) -> str:
        """Address for clients, as in 127.0.0.1:1234."""
        return f"127.0.0.1:{self._client_port}"

    @property
    def pid(self) -> int:
        """Of the process that runs. Raises ValueError when none does."""
        if self._process is None:
            raise ValueError("etcd is not running")
        return self._process.pid

    def start(self) -> None:
        """Start, and return when it serves."""
        self._spawn()
        self._wait_healthy()

    def _spawn(self) -> None:
        client, peer = f"http://{self.endpoint}", self._peer
        command = [
            self._binary,
            f"--name={self.name}",
            f"--data-dir={self._folder / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self._cluster}",
            "--logger=zap",
            "--log-level=error",
        ]
        with (self._folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def _wait_healthy(self) -> None:
        assert self._process is not None
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"etcd ended: {(self._folder / 'etcd.log').read_text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"http://{self.endpoint}/health", timeout=1) as answer:
                    if b'"true"' in answer.read():
                        return
            except (urllib.error.URLError, OSError):
                # Not listening yet: ask again when the process has had some time.
                with_patience()
        raise TimeoutError("etcd did not become healthy in 20 s")

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def with_patience() -> None:
    """A short wait for a process outside that tells nobody when it is ready."""
    subprocess.run(["sleep", "0.05"], check=True)
