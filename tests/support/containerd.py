"""A real containerd of its own for a test: own root, state, socket, network namespace, images built on the spot.

Needs root, containerd, runc, busybox-static and the reference CNI plugins. Everything it makes bears the test's prefix
and is taken away by id at the end.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tiphys_cri.containerd import import_image
from tiphys_cri.endpoint import channel
from tiphys_cri.errors import CRIError
from tiphys_cri.runtime import GrpcRuntimeService
from tiphys_kubelet.volumes.mounts import mounts_below, unmount

PAUSE = "registry.k8s.io/pause:3.6"
BUSYBOX = "docker.io/library/busybox:latest"
CNI_DIR = Path("/usr/lib/cni")
BUSYBOX_PATH = Path("/usr/bin/busybox")


def missing() -> str:
    """Why real containers can't be run here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("containerd", "runc", "ip"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    if not BUSYBOX_PATH.exists():
        return "needs busybox-static"
    if not (CNI_DIR / "bridge").exists():
        return "needs containernetworking-plugins"
    return ""


@dataclass(frozen=True, slots=True)
class ContainerdNode:
    """A running containerd: where it listens, where its things lie, and how its pods are reached from here."""

    name: str
    root: Path
    endpoint: str
    netns: str


@asynccontextmanager
async def containerd_node(
    prefix: str, *, cni_bin: Path = CNI_DIR, more_plugins: tuple[dict[str, object], ...] = ()
) -> AsyncIterator[ContainerdNode]:
    """Starts containerd with pause and busybox; pods are reached from this namespace by a route of their own.

    cni_bin has the CNI plugins, by default the reference ones; more_plugins come after the bridge.
    """
    name = f"{prefix}{uuid.uuid4().hex[:6]}"
    number = await asyncio.to_thread(_free_number)
    root = Path(f"/run/{name}")
    await asyncio.to_thread(root.mkdir)
    try:
        with _network(name, number):
            process = _start(name, root, number, cni_bin, more_plugins)
            try:
                endpoint = f"unix://{root}/containerd.sock"
                await _wait_ready(endpoint, root / "containerd.log")
                await _import_images(endpoint, root)
                yield ContainerdNode(name, root, endpoint, name)
            finally:
                await _end(process, root)
    finally:
        for point in mounts_below(root):
            unmount(point)
        shutil.rmtree(root, ignore_errors=True)
        _remove_cgroups(name)


def _remove_cgroups(name: str) -> None:
    """The groups of pods that no kubelet took away."""
    for top in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        groups = sorted((path for path in top.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
        for group in (*groups, top):
            group.rmdir()


def _free_number() -> int:
    """A number that no other test has now, so that two at once do not share addresses."""
    routes = subprocess.run(["ip", "-4", "route"], check=True, capture_output=True, text=True).stdout
    free = [number for number in range(250) if f"10.199.{number}.0/24" not in routes]
    return free[uuid.uuid4().int % len(free)]


@contextmanager
def _network(name: str, number: int) -> Iterator[None]:
    """A namespace with a leg into ours, so that probes reach pods."""
    leg, peer = f"{name}h"[:15], f"{name}n"[:15]
    _ip("netns", "add", name)
    try:
        _ip("link", "add", leg, "type", "veth", "peer", "name", peer, "netns", name)
        _ip("address", "add", f"169.254.{number}.1/30", "dev", leg)
        _ip("link", "set", leg, "up")
        _ip("-n", name, "address", "add", f"169.254.{number}.2/30", "dev", peer)
        _ip("-n", name, "link", "set", peer, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "route", "add", "default", "via", f"169.254.{number}.1")
        _ip("route", "add", f"10.199.{number}.0/24", "via", f"169.254.{number}.2", "dev", leg)
        subprocess.run(["nsenter", f"--net=/run/netns/{name}", "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        yield
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _start(
    name: str, root: Path, number: int, cni_bin: Path, more_plugins: tuple[dict[str, object], ...]
) -> subprocess.Popen[bytes]:
    for folder in ("cni/net.d", "certs.d"):
        (root / folder).mkdir(parents=True)
    ipam = {"type": "host-local", "dataDir": f"{root}/cni/ipam", "ranges": [[{"subnet": f"10.199.{number}.0/24"}]]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True}
    plugins = [bridge | {"ipam": ipam | {"routes": [{"dst": "0.0.0.0/0"}]}}, *more_plugins]
    conflist = {"cniVersion": "1.0.0", "name": name, "plugins": plugins}
    (root / "cni/net.d/10-test.conflist").write_text(json.dumps(conflist))
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    (root / "config.toml").write_text(f"""version = 2
root = "{root}/root"
state = "{root}/state"
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
{cri}]
  sandbox_image = "{PAUSE}"
  stream_server_address = "169.254.{number}.2"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
{cri}.cni]
  bin_dir = "{cni_bin}"
  conf_dir = "{root}/cni/net.d"
{cri}.registry]
  config_path = "{root}/certs.d"
{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
""")
    with (root / "containerd.log").open("wb") as log:
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{name}", "containerd", "--config", str(root / "config.toml")],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def _wait_ready(endpoint: str, log: Path) -> None:
    async with channel(endpoint) as dialled:
        runtime = GrpcRuntimeService(dialled)
        for _ in range(200):
            try:
                status = await runtime.status()
            except CRIError:
                await asyncio.sleep(0.05)
                continue
            if all(condition.status for condition in status.conditions):
                return
            await asyncio.sleep(0.05)
    text = await asyncio.to_thread(log.read_text)
    raise RuntimeError(f"containerd does not become ready:\n{text[-3000:]}")


async def _import_images(endpoint: str, root: Path) -> None:
    rootfs = {"bin/busybox": await asyncio.to_thread(BUSYBOX_PATH.read_bytes)}
    links = ("sh", "sleep", "cat", "echo", "httpd", "nc", "id", "ls", "wc", "true", "false", "env", "printf", "stty")
    async with channel(endpoint) as dialled:
        for name, command in ((PAUSE, ["/bin/sleep", "infinity"]), (BUSYBOX, ["/bin/sh"])):
            path = root / f"{name.rsplit('/', 1)[-1]}.tar"
            write_image(path, name, rootfs, links, command)
            await import_image(dialled, path)


def write_image(path: Path, name: str, files: dict[str, bytes], links: tuple[str, ...], command: list[str]) -> None:
    """An OCI layout of one layer; the links lie in bin and lead to busybox."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for folder in ("bin", "tmp", "etc"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        for member, data in files.items():
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
        for link in links:
            info = tarfile.TarInfo(f"bin/{link}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
    layer = gzip.compress(raw.getvalue(), 1, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(raw.getvalue())]},
        }
    ).encode()
    oci = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{oci}.manifest.v1+json",
            "config": _described(f"{oci}.config.v1+json", config),
            "layers": [_described(f"{oci}.layer.v1.tar+gzip", layer)],
        }
    ).encode()
    entry = _described(f"{oci}.manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": name}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    with tarfile.open(path, "w") as tar:
        contents = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
        contents |= {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (config, manifest, layer)}
        for member, data in contents.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _described(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


async def _end(process: subprocess.Popen[bytes], root: Path) -> None:
    """Removes every pod, then ends containerd."""
    try:
        async with channel(f"unix://{root}/containerd.sock") as dialled:
            runtime = GrpcRuntimeService(dialled)
            for sandbox in await runtime.list_pod_sandboxes():
                await runtime.stop_pod_sandbox(sandbox.id)
                await runtime.remove_pod_sandbox(sandbox.id)
    except CRIError:
        pass  # it died in the test; what it left is unmounted with its directory
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.to_thread(process.wait, 10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
