"""Plugins that are wrong, slow or gone, and files that are damaged: each is told, and heals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.conformance.device.broken import DuplicateIds, NeverRegisters, SoundPlugin, served
from tests.support.devices import RESOURCE, ToyPlugin, device_side, gpu_pod, running, serving, short_folder
from tests.support.kubelet import wait_until
from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tiphys_component import rpc
from tiphys_component.clock import FakeClock, SystemClock
from tiphys_kubelet.plugin_watcher import PluginWatcher
from tiphys_kubelet.resources import checkpoint
from tiphys_kubelet.resources.allocation import NotYet, Refused
from tiphys_kubelet.resources.endpoint import PluginFailure
from tiphys_kubelet.resources.manager import EXPECTED_AFTER_LOSS_S, GRACE_S
from tiphys_kubelet.resources.registration import DevicePluginHandler
from tiphys_sdk.device.plugin import Device, Grant, Refusal
from tiphys_sdk.registration import PluginInfo, RegistrationServer

TOY = SoundPlugin.resource


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@asynccontextmanager
async def kubelet_stub(folder: Path) -> AsyncIterator[api_pb2_grpc.RegistrationAsyncStub]:
    async with rpc.channel(rpc.unix_address(folder / "kubelet.sock")) as channel:
        yield api_pb2_grpc.RegistrationStub(channel)


@pytest.mark.parametrize(
    ("version", "endpoint", "resource", "words"),
    [
        pytest.param("v1alpha", "x.sock", RESOURCE, 'API version "v1alpha" is not supported', id="version"),
        pytest.param("v1beta1", "x.sock", "gpu", 'the ResourceName "gpu" is invalid', id="no domain"),
        pytest.param("v1beta1", "x.sock", "kubernetes.io/gpu", "is invalid", id="Kubernetes' own"),
        pytest.param("v1beta1", "x.sock", "a.b/c d", "is invalid", id="no name"),
        pytest.param("v1beta1", "../x.sock", RESOURCE, "no name of a socket", id="another folder"),
        pytest.param("v1beta1", "kubelet.sock", RESOURCE, "no name of a socket", id="the kubelet's own socket"),
        pytest.param("v1beta1", "x.sock", RESOURCE, "failed to dial device plugin", id="stale socket"),
    ],
)
async def test_a_wrong_registration_is_refused_with_the_reason(
    folder: Path, version: str, endpoint: str, resource: str, words: str
) -> None:
    request = api_pb2.RegisterRequest(version=version, endpoint=endpoint, resource_name=resource)
    async with device_side(folder) as side, kubelet_stub(folder) as stub:
        with pytest.raises(grpc.aio.AioRpcError, match=words):
            await stub.Register(request, timeout=5, wait_for_ready=True)
        assert side.manager.counts() == {}


async def test_ids_told_twice_are_reported_and_count_once(folder: Path) -> None:
    async with device_side(folder) as side, served(DuplicateIds(), folder):
        await side.until_counts(2, 2, TOY)
        assert side.reports == [("DuplicateDevices", f"device plugin of {TOY} told these ids more than once: a")]


async def test_a_device_that_turns_unhealthy_while_in_use_stays_with_its_pod(folder: Path) -> None:
    plugin = ToyPlugin(["0"])
    async with device_side(folder) as side, serving(plugin, folder):
        await side.until_counts(1, 1)
        pod = gpu_pod("one")
        await side.manager.allocate(pod)
        plugin.set(Device("0", healthy=False))
        await side.until_counts(1, 0)
        await side.manager.allocate(pod)
        assert side.manager.health(pod)["app"][0].resources[0].health == "Unhealthy"
        with pytest.raises(Refused, match="no healthy devices present"):
            await side.manager.allocate(gpu_pod("two"))
        plugin.set(Device("0"))
        await side.until_counts(1, 1)


async def test_a_plugin_that_does_not_come_back_is_forgotten_after_five_minutes(folder: Path) -> None:
    clock = FakeClock()
    async with device_side(folder, clock) as side:
        async with serving(ToyPlugin(), folder):
            await side.until_counts(4, 4)
        await side.until_counts(4, 0)
        with pytest.raises(NotYet):
            await side.manager.allocate(gpu_pod("one"))
        clock.advance(EXPECTED_AFTER_LOSS_S)
        with pytest.raises(Refused, match="no healthy devices present"):
            await side.manager.allocate(gpu_pod("one"))
        clock.advance(GRACE_S)
        assert side.manager.counts() == {RESOURCE: (0, 0)}
        async with serving(ToyPlugin(), folder):
            await side.until_counts(4, 4)


class Refusing(ToyPlugin):
    async def allocate(self, ids: Sequence[str]) -> Grant:
        raise Refusal("the cable is out")

    async def pre_start(self, ids: Sequence[str]) -> None:
        raise Refusal("the cable is out")


async def test_a_plugin_that_refuses_leaves_the_device_free(folder: Path) -> None:
    async with device_side(folder) as side, serving(Refusing(), folder):
        await side.until_counts(4, 4)
        with pytest.raises(Refused, match="rpc error: code = FailedPrecondition desc = the cable is out"):
            await side.manager.allocate(gpu_pod("one"))
        assert side.manager.owners() == frozenset()


class RefusingToStart(Refusing):
    async def allocate(self, ids: Sequence[str]) -> Grant:
        return Grant()


async def test_a_plugin_that_is_not_ready_for_the_start_is_told_of(folder: Path) -> None:
    async with device_side(folder) as side, serving(RefusingToStart(), folder):
        await side.until_counts(4, 4)
        pod = gpu_pod("one")
        await side.manager.allocate(pod)
        with pytest.raises(PluginFailure, match="the cable is out"):
            await side.manager.prepare(pod, pod.spec.containers[0])


class Slow(ToyPlugin):
    def __init__(self) -> None:
        super().__init__(["0", "1"])
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def allocate(self, ids: Sequence[str]) -> Grant:
        self.asked.set()
        await self.go.wait()
        return Grant()


async def test_a_pod_that_is_deleted_while_a_plugin_thinks_holds_nothing(folder: Path) -> None:
    plugin = Slow()
    async with device_side(folder) as side, serving(plugin, folder):
        await side.until_counts(2, 2)
        task = asyncio.create_task(side.manager.allocate(gpu_pod("one")))
        await plugin.asked.wait()
        assert side.manager.owners() == {"one"}
        assert side.manager.holdings() == {}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert side.manager.owners() == frozenset()
        plugin.go.set()


async def test_a_plugin_that_dies_while_it_thinks_is_waited_for(folder: Path) -> None:
    plugin = Slow()
    async with device_side(folder) as side:
        async with serving(plugin, folder):
            await side.until_counts(2, 2)
            task = asyncio.create_task(side.manager.allocate(gpu_pod("one")))
            await plugin.asked.wait()
        with pytest.raises(NotYet):
            await task
        assert side.manager.owners() == frozenset()


async def test_a_damaged_checkpoint_is_put_aside_and_told(folder: Path) -> None:
    (folder / checkpoint.FILE_NAME).write_text('{"Data": {')
    async with device_side(folder) as side, serving(ToyPlugin(), folder):
        await side.until_counts(4, 4)
        assert side.reports[0][0] == "CorruptDeviceCheckpoint"
        assert (folder / f"{checkpoint.FILE_NAME}.corrupt").exists()


async def test_what_can_not_be_kept_is_not_given(folder: Path) -> None:
    async with device_side(folder) as side, serving(ToyPlugin(), folder):
        await side.until_counts(4, 4)
        # Root writes everywhere, but not over a folder.
        (folder / f".{checkpoint.FILE_NAME}.new").mkdir()
        with pytest.raises(OSError, match="checkpoint can't be written"):
            await side.manager.allocate(gpu_pod("one"))
        assert side.manager.owners() == frozenset()
        (folder / f".{checkpoint.FILE_NAME}.new").rmdir()
        await side.manager.allocate(gpu_pod("one"))


async def test_a_plugin_may_register_by_a_socket_in_the_registration_folder(folder: Path) -> None:
    async with device_side(folder) as side:
        registry = folder / "registry"
        watcher = PluginWatcher(registry, {"DevicePlugin": DevicePluginHandler(side.manager)}, SystemClock())
        async with running(watcher.run), served(NeverRegisters(), folder) as endpoint:
            info = PluginInfo("DevicePlugin", "example.com/other", endpoint, ("v1beta1",))
            async with running(RegistrationServer(registry / "toy-reg.sock", info).run):
                await side.until_counts(3, 3, "example.com/other")
            await side.until_counts(3, 0, "example.com/other")
        await wait_until(lambda: not (registry / "toy-reg.sock").exists())
