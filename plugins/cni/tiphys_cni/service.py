"""The resident CNI service of a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tiphys_client.client import Client
from tiphys_client.kubeconfig import load
from tiphys_client.transport import GrpcTransport
from tiphys_cni import configuration, conflist
from tiphys_cni.install import install
from tiphys_cni.listener import Listener
from tiphys_cni.options import Options
from tiphys_cni.servicer import Place, servicer
from tiphys_cni.turns import Turns
from tiphys_component import log
from tiphys_component.app import StartupError, run, start_loop
from tiphys_component.clock import SystemClock
from tiphys_component.options import parse
from tiphys_component.rpc import Server, unix_address


class CniService:
    """Listens for launchers, shows its gRPC face, and keeps the network configuration true."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def run(self) -> None:
        """Works until cancelled. Attachments stay when it ends, and launchers then do the work themselves."""
        options = self._options
        if options.bin_dir is not None:
            await asyncio.to_thread(install, options.bin_dir, str(options.socket), others=options.plugin_dir)
        grpc_socket = options.grpc_socket or options.socket.with_name(options.socket.stem + "-grpc.sock")
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            turns = Turns()
            start_loop(group, Listener(options.socket, turns).run(), "listener")
            face = Server(unix_address(grpc_socket), None, (servicer(self._place(), turns),), flag="--grpc-socket")
            start_loop(group, face.run(), "grpc face")
            if options.conf_dir is not None:
                start_loop(group, self._follow(stack, options.conf_dir), "network configuration")

    def _place(self) -> Place:
        options = self._options
        if options.network != "flannel":
            return Place(options.conf_dir, options.bin_dir)
        waits_for = f"the flannel service has not written {options.subnet_file}"
        return Place(options.conf_dir, options.bin_dir, waits_for)

    async def _follow(self, stack: AsyncExitStack, folder: Path) -> None:
        options = self._options
        if options.network == "flannel":
            await configuration.follow_flannel(options.subnet_file, folder, data_dir=options.data_dir, mtu=options.mtu)
            return
        if options.network == "file":
            await self._follow_file(stack, folder)
            return
        ranges = self._ranges(stack)
        await configuration.follow(ranges, folder, data_dir=options.data_dir, mtu=options.mtu)

    async def _follow_file(self, stack: AsyncExitStack, folder: Path) -> None:
        if self._options.conf_file is None:
            raise StartupError("no network configuration list is named", "give --conf-file with --network=file")
        try:
            template = await asyncio.to_thread(conflist.read_template, self._options.conf_file)
        except conflist.TemplateError as err:
            raise StartupError(str(err), "correct the file") from err
        ranges = self._ranges(stack) if template.needs_range else configuration.fixed("")
        await configuration.follow_file(ranges, template, folder)

    def _ranges(self, stack: AsyncExitStack) -> AsyncIterator[str]:
        options = self._options
        if options.pod_cidr:
            return configuration.fixed(options.pod_cidr)
        if options.kubeconfig is None or not options.node_name:
            raise StartupError("the pod range is unknown", "give --pod-cidr, or --kubeconfig with --node-name")
        client = Client(GrpcTransport(load(options.kubeconfig)), field_manager="tiphys-cni")
        stack.push_async_callback(client.close)
        return configuration.pod_ranges(client, options.node_name, SystemClock())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the service; returns the exit code."""
    options = parse(Options, argv, prog="tiphys-cni")
    log.configure(options.log_level, options.log_format)
    return run(CniService(options), name="tiphys-cni")
