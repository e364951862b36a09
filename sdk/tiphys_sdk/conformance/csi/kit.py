"""The steps for a CSI driver, chosen by what it says that it offers; every call that may be repeated is.

The endpoint is the driver's socket, as a path or unix:///path. The driver must run in the same mount namespace as the
kit, and volumes named bench-… come and go. Options:

- `dir`: folder for staging and target paths; a fresh one below /tmp by default
- `size`: bytes of a volume, 16 MiB by default
- `parameters`: parameters of volumes, as `a=1;b=2`
- `limit`: seconds that one call may take, 20 by default
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_component.app import StartupError
from tiphys_component.rpc import unix_address
from tiphys_sdk.conformance.bench import Bench, check_options
from tiphys_sdk.conformance.csi.controller import volume_steps
from tiphys_sdk.conformance.csi.identity import identity_steps
from tiphys_sdk.conformance.csi.node import mounts_below, node_steps, settle
from tiphys_sdk.conformance.csi.session import Session, stubs
from tiphys_sdk.conformance.csi.snapshots import snapshot_steps
from tiphys_sdk.sockets import socket_path

OPTIONS = ("dir", "size", "parameters", "limit")


async def run(endpoint: str, bench: Bench, options: Mapping[str, str]) -> None:
    """Tests the driver at endpoint. Raises ValueError for wrong options, or where there is no socket."""
    check_options(options, OPTIONS)
    path = _path(endpoint)
    if not path.is_socket():
        raise ValueError(f"there is no socket {path}")
    size_bytes, limit_s = _number(options, "size", 16 << 20), _number(options, "limit", 20)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="csibench", dir=options.get("dir", "/tmp")))
    settings = [("grpc.default_authority", "localhost")]
    channel = grpc.aio.insecure_channel(unix_address(path), settings, interceptors=bench.interceptors())
    try:
        async with channel as opened:
            identity, controller, node = stubs(opened)
            session = Session(
                bench, identity, controller, node, folder, size_bytes, _parameters(options), float(limit_s)
            )
            await _steps(session)
    finally:
        # Never through a mount: what is below would be a volume.
        if not await asyncio.to_thread(mounts_below, folder):
            await asyncio.to_thread(shutil.rmtree, folder)


async def _steps(session: Session) -> None:
    await identity_steps(session)
    if session.has_controller:
        await volume_steps(session)
        await snapshot_steps(session)
    await node_steps(session)
    for snapshot_id in session.snapshots:
        request = csi_pb2.DeleteSnapshotRequest(snapshot_id=snapshot_id)
        await settle(session, session.call(session.controller, "DeleteSnapshot", request))
    for volume_id in list(session.volumes):
        await settle(session, session.delete(volume_id))
    async with session.bench.step("nothing is left", "when all is taken back no mount is left"):
        left = await asyncio.to_thread(mounts_below, session.folder)
        if left:
            raise AssertionError(f"still mounted: {', '.join(left)}")


def _path(endpoint: str) -> Path:
    try:
        return socket_path(endpoint)
    except StartupError as err:
        raise ValueError(str(err)) from err


def _number(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isdigit() or not int(text):
        raise ValueError(f"--option {name}: {text!r} is no whole number above 0")
    return int(text)


def _parameters(options: Mapping[str, str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, options.get("parameters", "").split(";")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"--option parameters: {part!r} is not of the form a=1")
        pairs[key] = value
    return pairs
