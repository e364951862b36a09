from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio
import pytest

from tiphys.thirdparty.csi.v1 import csi_pb2, csi_pb2_grpc
from tiphys.thirdparty.pluginregistration.v1 import api_pb2, api_pb2_grpc
from tiphys_component.app import StartupError
from tiphys_component.inotify import FolderWatch
from tiphys_component.rpc import channel
from tiphys_sdk.csi.controller import Controller, Rpc
from tiphys_sdk.csi.driver import Driver
from tiphys_sdk.csi.identity import controller_capabilities, node_capabilities
from tiphys_sdk.csi.node import Node
from tiphys_sdk.csi.server import DriverServer
from tiphys_sdk.sockets import claim, socket_path


class Disks(Controller):
    also_offers = (Rpc.CLONE_VOLUME,)

    async def CreateVolume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        return csi_pb2.CreateVolumeResponse(volume=csi_pb2.Volume(volume_id=request.name))

    async def DeleteVolume(self, request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        raise OSError(28, "No space left on device")

    async def ControllerPublishVolume(
        self, request: csi_pb2.ControllerPublishVolumeRequest
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        return csi_pb2.ControllerPublishVolumeResponse()


@asynccontextmanager
async def served(driver: Driver) -> AsyncIterator[Path]:
    with TemporaryDirectory(prefix="tcsi", dir="/tmp") as name:
        folder = Path(name)
        server = DriverServer(driver, f"unix://{folder}/csi.sock", f"{folder}/reg.sock")
        task = asyncio.create_task(server.run())
        with FolderWatch(folder) as watch:
            while not (folder / "reg.sock").exists():  # one look
                await watch.wait()
        yield folder
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert os.listdir(folder) == []


def test_capabilities_follow_from_the_calls_that_are_written() -> None:
    driver = Driver(name="a.example.com", controller=Disks(), node=Node())
    # Publish alone is not offered: what can't be taken back is no capability.
    assert {one.rpc.type for one in controller_capabilities(driver).capabilities} == {
        Rpc.CREATE_DELETE_VOLUME,
        Rpc.CLONE_VOLUME,
    }
    assert not node_capabilities(driver).capabilities


@pytest.mark.parametrize("name", ["", "-a", "a_b", "a" * 64, "a."])
def test_name_that_is_no_domain_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="driver name"):
        Driver(name=name)


async def test_driver_serves_checks_maps_errors_and_registers() -> None:
    driver = Driver(name="a.example.com", controller=Disks(), topology=True)
    async with served(driver) as folder, channel(f"unix:{folder}/csi.sock") as opened:
        identity: Any = csi_pb2_grpc.IdentityStub(opened)
        controller: Any = csi_pb2_grpc.ControllerStub(opened)
        info = await identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
        assert info.name == "a.example.com"
        assert (await identity.Probe(csi_pb2.ProbeRequest())).ready.value
        for call, request, code in (
            (controller.DeleteVolume, csi_pb2.DeleteVolumeRequest(), grpc.StatusCode.INVALID_ARGUMENT),
            (controller.DeleteVolume, csi_pb2.DeleteVolumeRequest(volume_id="a"), grpc.StatusCode.INTERNAL),
            (controller.ListVolumes, csi_pb2.ListVolumesRequest(), grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(request)
            assert raised.value.code() is code
        async with channel(f"unix:{folder}/reg.sock") as registry:
            stub: Any = api_pb2_grpc.RegistrationStub(registry)
            told = await stub.GetInfo(api_pb2.InfoRequest())
            assert (told.type, told.name, told.endpoint) == ("CSIPlugin", "a.example.com", f"{folder}/csi.sock")
            assert list(told.supported_versions) == ["1.0.0"]
            await stub.NotifyRegistrationStatus(api_pb2.RegistrationStatus(plugin_registered=False, error="why"))


def test_socket_of_a_dead_process_is_removed_and_one_of_a_living_is_not() -> None:
    with TemporaryDirectory(prefix="tcsi", dir="/tmp") as name:
        path = Path(name) / "a" / "x.sock"
        assert claim(path) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            with pytest.raises(StartupError, match="another process listens"):
                claim(path)
        assert path.is_socket()
        claim(path)
        assert not path.exists()
        path.write_text("mine")
        with pytest.raises(StartupError, match="no socket"):
            claim(path)
        assert path.read_text() == "mine"


@pytest.mark.parametrize("endpoint", ["tcp://1.2.3.4:5", "unix://relative", "unix:///" + "a" * 108])
def test_endpoint_that_is_no_socket_path_is_refused(endpoint: str) -> None:
    with pytest.raises(StartupError):
        socket_path(endpoint)


@pytest.mark.parametrize("endpoint", ["unix:///a/b", "unix:/a/b", "/a/b"])
def test_endpoint_may_be_written_in_three_ways(endpoint: str) -> None:
    assert socket_path(endpoint) == Path("/a/b")
