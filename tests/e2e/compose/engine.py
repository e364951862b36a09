"""A Docker engine of a test's own: its data, its socket, its cgroup and its network, and base images made on the spot.

Images are built with the machine's own network and no bridge at all. Then the engine is started anew inside a network
namespace, so that what it puts into firewalls and its bridges meet nothing of the machine's. What it built stays below
build/ as a cache, as does the base image, which holds the certificates and pip.conf of the machine: never publish it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.e2e.cluster import ROOT, eventually, run
from tiphys_cluster import cgroups, kernel, mounts

CACHE = ROOT / "build" / "compose-test"
_BASE_PACKAGES = "ca-certificates,python3,python3-pip"
_PYTHON_IMAGE, _DEBIAN_IMAGE = "python:3.11-slim-bookworm", "debian:bookworm-slim"
# What of the machine's own set-up a build needs to reach packages.
_OF_THE_MACHINE = ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf")

# Where the bounding set lacks CAP_SYS_RESOURCE runc can't give it to a privileged container, nor lower a score.
_RUNC_WITHOUT_RESOURCE = """#!/bin/sh
bundle=. previous= process=
for word in "$@"; do
  case $previous in --bundle | -b) bundle=$word ;; --process | -p) process=$word ;; esac
  case $word in --bundle=*) bundle=${word#*=} ;; --process=*) process=${word#*=} ;; esac
  previous=$word
done
for file in "$bundle/config.json" "$process"; do
  [ -n "$file" ] && [ -f "$file" ] &&
    sed -i -E 's/"CAP_SYS_RESOURCE",?//g; s/,\\]/]/g; s/"oomScoreAdj":-[0-9]+/"oomScoreAdj":0/g' "$file"
done
exec runc "$@"
"""


@dataclass
class Engine:
    """One engine; start() and stop() may alternate. name is unique on the machine and short."""

    name: str
    data: Path = CACHE / "docker"
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def run_dir(self) -> Path:
        return Path("/run") / self.name

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": f"unix://{self.run_dir}/docker.sock", "COMPOSE_DOCKER_CLI_BUILD": "0"}

    @property
    def inside(self) -> tuple[str, ...]:
        """What goes before a command that shall run in the engine's network."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def docker(self, *arguments: str) -> str:
        return run("env", f"DOCKER_HOST={self.environment['DOCKER_HOST']}", "docker", *arguments)

    def start_to_build(self) -> None:
        """With the machine's network for builds, and nothing changed in it."""
        self._start(
            (), "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false", "--bridge=none"
        )

    def start_to_run(self) -> None:
        """In a network of its own, with an engine's usual rules."""
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        self._start(self.inside)

    def _start(self, before: tuple[str, ...], *flags: str) -> None:
        self.run_dir.mkdir(exist_ok=True)
        flags = (
            *flags,
            f"--data-root={self.data}",
            f"--exec-root={self.run_dir}/exec",
            f"--pidfile={self.run_dir}/pid",
            f"--host=unix://{self.run_dir}/docker.sock",
            f"--cgroup-parent=/{self.name}",
            *self._runtime(),
        )
        with (self.run_dir / "log").open("ab") as log:
            command = [*before, "dockerd", *flags]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        eventually(self._is_up)

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.run_dir / "log").read_text()[-3000:]
        return (
            subprocess.run(["docker", "info"], env=self.environment, capture_output=True, check=False).returncode == 0
        )

    def _runtime(self) -> tuple[str, ...]:
        if kernel.has_capability(kernel.CAP_SYS_RESOURCE):
            return ()
        wrapper = self.run_dir / "runc"
        wrapper.write_text(_RUNC_WITHOUT_RESOURCE)
        wrapper.chmod(0o755)
        return (f"--add-runtime=own={wrapper}", "--default-runtime=own")

    def stop(self) -> None:
        """End the engine and the containerd that it started."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None

    def close(self) -> None:
        """Take everything but the cache off the machine."""
        self.stop()
        if Path("/run/netns", self.name).exists():
            run("ip", "netns", "delete", self.name)
        for tree in cgroups.trees(self.name):
            eventually(partial(cgroups.remove_tree, tree), timeout_s=10)
        # The engine leaves the mount of its own namespace, which would keep that alive.
        mounts.unmount_below(self.run_dir, self.data)
        if self.run_dir.exists():
            shutil.rmtree(self.run_dir)

    def import_base_images(self) -> None:
        """Have the two images that the Dockerfiles begin with; one file system made by debootstrap serves as both."""
        if _PYTHON_IMAGE in self.docker("images", "--format", "{{.Repository}}:{{.Tag}}"):
            return
        self.docker("import", str(ensure_base()), _PYTHON_IMAGE)
        self.docker("tag", _PYTHON_IMAGE, _DEBIAN_IMAGE)


def ensure_base() -> Path:
    """An archive of Debian with Python, which reaches packages as this machine does; made once."""
    archive = CACHE / "base.tar"
    if archive.exists():
        return archive
    root = CACHE / f"base-{os.getpid()}-{time.time_ns()}"
    root.mkdir(parents=True)
    try:
        command = ("debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", "bookworm", str(root))
        run(*command, timeout_s=400)
        for name in _OF_THE_MACHINE:
            if Path("/", name).exists():
                shutil.copy(Path("/", name), root / name)
        # The images of this name have their own Python in /usr/local, which pip may install into.
        next((root / "usr" / "lib").glob("python3.*/EXTERNALLY-MANAGED")).unlink()
        for name in ("python", "python3"):
            (root / "usr" / "local" / "bin" / name).symlink_to("/usr/bin/python3")
        part = archive.with_suffix(".part")
        with tarfile.open(part, "w") as tar:
            tar.add(root, ".", filter=_without_caches)
        part.rename(archive)
    finally:
        shutil.rmtree(root)
    return archive


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.startswith(("./var/cache/apt/", "./var/lib/apt/lists/")) else member
