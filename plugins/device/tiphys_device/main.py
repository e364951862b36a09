"""The entry of the device plugins: one process, one plugin for each resource."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from tiphys_client.client import Client
from tiphys_client.kubeconfig import load
from tiphys_client.transport import GrpcTransport
from tiphys_component import log, metrics, status_server
from tiphys_component.app import StartupError, run, start_loop
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.health import Health, NotReady
from tiphys_component.options import parse
from tiphys_component.proc import to_thread
from tiphys_component.zpages import ZPages
from tiphys_device.claimed import SimulatedDraDriver
from tiphys_device.generic import read_config
from tiphys_device.nvidia import NvidiaPlugin
from tiphys_device.nvml import NvmlLibrary
from tiphys_device.options import Options
from tiphys_device.simulated import parse_simulation, read_simulation
from tiphys_sdk.device.plugin import DevicePlugin
from tiphys_sdk.device.serve import DeviceServer
from tiphys_sdk.dra.serve import DraServer


class DeviceService:
    """The plugins that the options ask for, each behind its socket."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def run(self) -> None:
        """Works until cancelled. Raises StartupError."""
        options, clock = self._options, SystemClock()
        if options.dra_driver:
            await serve_claims(options, clock)
            return
        servers = [DeviceServer(p, options.kubelet_dir, clock) for p in await to_thread(make_plugins, options)]
        async with asyncio.TaskGroup() as group:
            for server in servers:
                start_loop(group, server.run(), f"plugin {server.resource}")
            if options.metrics_port:
                status = status_server.serve(
                    options.metrics_address,
                    options.metrics_port,
                    _registry(servers),
                    _health(servers),
                    pages=ZPages("device-plugin", options),
                    flag="--metrics-port",
                )
                start_loop(group, status, "metrics and health")


async def serve_claims(options: Options, clock: Clock) -> None:
    """Serves the simulated devices as a DRA driver. Raises StartupError."""
    if not (options.simulate and options.kubeconfig and options.node_name):
        raise StartupError("--dra-driver lacks something", "give --simulate, --kubeconfig and --node-name with it")
    try:
        simulation = parse_simulation(options.simulate)
    except ValueError as err:
        raise StartupError(str(err), "correct --simulate") from err
    driver = SimulatedDraDriver(options.dra_driver, options.node_name, simulation, options.cdi_dir)
    client = Client(GrpcTransport(load(options.kubeconfig)), field_manager=options.dra_driver)
    try:
        await DraServer(driver, options.node_name, client, clock, kubelet_dir=options.kubelet_root).run()
    finally:
        await client.close()


def make_plugins(options: Options) -> Sequence[DevicePlugin]:
    """The plugins that the options ask for. Raises StartupError. Blocks."""
    if options.simulate:
        return [read_simulation(options.simulate, options.state_dir)]
    if options.kind == "nvidia":
        return [NvidiaPlugin(NvmlLibrary, SystemClock())]
    if options.config is None:
        raise StartupError("no devices are named", "give --config with --kind generic, or --kind nvidia, or --simulate")
    return read_config(options.config)


def _registry(servers: Sequence[DeviceServer]) -> metrics.Registry:
    registry = metrics.Registry(process_metrics=True)
    devices = registry.gauge("tiphys_device_plugin_devices", "Devices, by resource and health.", ["resource", "health"])
    registered = registry.gauge("tiphys_device_plugin_registered", "1 while the kubelet reads the list.", ["resource"])
    for server in servers:
        registered.labels(server.resource).set_function(partial(_is_registered, server))
        devices.labels(server.resource, "Healthy").set_function(partial(_count, server, True))
        devices.labels(server.resource, "Unhealthy").set_function(partial(_count, server, False))
    return registry


def _is_registered(server: DeviceServer) -> float:
    return float(server.is_registered)


def _count(server: DeviceServer, healthy: bool) -> float:
    return float(sum(device.healthy is healthy for device in server.devices))


def _health(servers: Sequence[DeviceServer]) -> Health:
    health = Health()
    for server in servers:
        health.add_readiness(server.resource, partial(_check_registered, server))
    return health


def _check_registered(server: DeviceServer) -> None:
    if not server.is_registered:
        raise NotReady("the kubelet does not read the devices")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the plugins; returns the exit code."""
    options = parse(Options, argv, prog="tiphys-device")
    log.configure(options.log_level, options.log_format)
    return run(DeviceService(options), name="device-plugin")
