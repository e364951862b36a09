"""The hostpath driver's entry."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_apimachinery.quantity import QuantityError, bytes_value
from tiphys_component.app import StartupError
from tiphys_component.clock import SystemClock
from tiphys_csi.hostpath.controller import AttachingController, HostPathController
from tiphys_csi.hostpath.node import HostPathNode
from tiphys_csi.hostpath.options import Options
from tiphys_csi.hostpath.rules import DRIVER_NAME, Limits
from tiphys_csi.hostpath.state import Store
from tiphys_sdk.csi.driver import Driver
from tiphys_sdk.csi.main import serve


def make_driver(options: Options) -> Driver:
    """The driver for these flags, its state read and cleaned up. Blocks for that; raises StartupError."""
    node_id = options.node_id or socket.gethostname()
    limits = Limits(
        _bytes("--max-volume-size", options.max_volume_size),
        _bytes("--capacity", options.capacity),
    )
    store = Store(options.state_dir)
    try:
        store.recover()
    except OSError as err:
        raise StartupError(f"cannot use {options.state_dir}: {err}", "check --state-dir") from err
    controller = AttachingController if options.attach else HostPathController
    return Driver(
        name=DRIVER_NAME,
        controller=controller(store, node_id, limits, SystemClock()),
        node=HostPathNode(store, node_id, needs_attach=options.attach, max_volumes=options.max_volumes_per_node),
        topology=True,
        expansion=csi_pb2.PluginCapability.VolumeExpansion.ONLINE,
    )


def _bytes(name: str, text: str) -> int:
    try:
        return bytes_value(text)
    except QuantityError as err:
        raise StartupError(f"{name}: {err}", "write a quantity such as 10Gi") from err


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the driver; returns the exit code."""
    return serve(make_driver, Options, argv)


if __name__ == "__main__":
    raise SystemExit(main())
