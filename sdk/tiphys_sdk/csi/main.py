"""A driver as a program: flags, log, signals, metrics and health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tiphys_component import log, metrics, status_server
from tiphys_component.app import run, start_loop
from tiphys_component.health import Health
from tiphys_component.options import LogOptions, flag, parse
from tiphys_component.zpages import ZPages
from tiphys_sdk.csi.driver import Driver
from tiphys_sdk.csi.server import DriverServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """A CSI driver."""

    endpoint: str = flag("--endpoint", help="unix socket of the driver, as unix:///path")
    registration_socket: str = flag(
        "--registration-socket", default="", help="socket in the kubelet's folder plugins_registry; empty for none"
    )
    node_id: str = flag("--node-id", "--nodeid", default="", help="the node's name as the driver knows it")
    bind_address: str = flag("--bind-address", default="127.0.0.1", help="address of metrics and health")
    healthz_port: int = flag("--healthz-port", default=0, help="port of metrics and health; 0 for none")


OptionsT = TypeVar("OptionsT", bound=Options)


def serve(make: Callable[[OptionsT], Driver], options: type[OptionsT], argv: Sequence[str] | None = None) -> int:
    """Runs the driver that make gives for the flags; returns the exit code."""
    chosen = parse(options, argv)
    log.configure(chosen.log_level, chosen.log_format)

    async def work() -> None:
        driver = make(chosen)
        registry, health = metrics.Registry(process_metrics=True), Health()
        async with asyncio.TaskGroup() as group:
            server = DriverServer(driver, chosen.endpoint, chosen.registration_socket)
            start_loop(group, server.run(), f"driver {driver.name}")
            if chosen.healthz_port:
                pages = ZPages("csi-driver", chosen)
                faces = status_server.serve(
                    chosen.bind_address, chosen.healthz_port, registry, health, pages=pages, flag="--healthz-port"
                )
                start_loop(group, faces, "metrics and health")

    return run(work, name="csi-driver")
