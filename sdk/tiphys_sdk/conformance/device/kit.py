"""The steps: what the kubelet relies on in a device plugin.

The endpoint is the plugin's socket. Where no kubelet listens beside it, or with the option `kubelet=true`, the kit
plays the kubelet there and tests registration too. Options:

- `kubelet`: `true` demands registration, `false` leaves it out; by default it is tested where kubelet.sock is free
- `resource`: the resource name that the plugin must register
- `limit`: seconds that one answer may take, 5 by default
- `allocate`: `false` leaves Allocate and PreStartContainer out, for a plugin whose devices are in use
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tiphys_component.rpc import unix_address
from tiphys_sdk.conformance.bench import Bench, Failure, check_options, expect, expect_code, option_flag
from tiphys_sdk.conformance.device.kubelet import SOCKET_NAME, DeviceStream, PlayedKubelet
from tiphys_sdk.sockets import is_listening, socket_path

OPTIONS = ("kubelet", "resource", "limit", "allocate")
UNKNOWN_ID = "tiphys-conformance-no-such-device"
_HEALTH = ("Healthy", "Unhealthy")
_RESOURCE = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z0-9-]+/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
# A stream that lives shorter than this is no stream; long enough to catch a plugin that dies in it.
_STAYS_OPEN_S = 0.3


async def run(endpoint: str, bench: Bench, options: Mapping[str, str]) -> None:
    """Tests the plugin at endpoint. Raises ValueError where that can't be: nobody listens there."""
    check_options(options, OPTIONS)
    path = socket_path(endpoint)
    if not await asyncio.to_thread(is_listening, path):
        raise ValueError(f"nobody listens at {path}")
    kubelet = path.parent / SOCKET_NAME
    taken = await asyncio.to_thread(is_listening, kubelet)
    registers = option_flag(options, "kubelet", default=not taken)
    if registers and taken:
        raise ValueError(f"a kubelet listens at {kubelet}; leave registration out with --option kubelet=false")
    settings = [("grpc.default_authority", "localhost")]
    async with grpc.aio.insecure_channel(
        unix_address(path), options=settings, interceptors=bench.interceptors()
    ) as channel:
        stub: api_pb2_grpc.DevicePluginAsyncStub = api_pb2_grpc.DevicePluginStub(channel)
        kit = _Kit(stub, bench, path, float(options.get("limit", "5")))
        if registers:
            await kit.registration(options.get("resource", ""))
        await kit.listing()
        await kit.preferring()
        if option_flag(options, "allocate", default=True):
            await kit.allocating()
            await kit.pre_starting()
        await kit.afterwards()


@dataclass(slots=True)
class _Kit:
    """One run; `devices` and `options` are what the plugin told."""

    stub: api_pb2_grpc.DevicePluginAsyncStub
    bench: Bench
    path: Path
    limit_s: float
    devices: tuple[api_pb2.Device, ...] = ()
    options: api_pb2.DevicePluginOptions = field(default_factory=api_pb2.DevicePluginOptions)

    @property
    def ids(self) -> list[str]:
        """Ids of the healthy devices, each once."""
        return list(dict.fromkeys(device.ID for device in self.devices if device.health == "Healthy"))

    async def registration(self, resource: str) -> None:
        """A kubelet comes, goes and comes again."""
        played = PlayedKubelet(self.bench)
        async with (
            AsyncExitStack() as life,
            self.bench.step(
                "register", "when kubelet.sock appears the plugin registers: v1beta1, its socket's name, its resource"
            ),
        ):
            await life.enter_async_context(played.listening(self.path.parent))
            await self._registered(played, resource)
        async with (
            AsyncExitStack() as life,
            self.bench.step(
                "register again", "when kubelet.sock is made anew, as by a kubelet that restarts, so does the plugin"
            ),
        ):
            await life.enter_async_context(played.listening(self.path.parent))
            await self._registered(played, resource)

    async def _registered(self, played: PlayedKubelet, resource: str) -> None:
        try:
            async with asyncio.timeout(self.limit_s):
                request = await played.registration(self.path.name)
        except TimeoutError as err:
            self.bench.record("Registration.Register (to the kubelet)", None, "no call came")
            raise Failure(f"no registration of endpoint {self.path.name} within {self.limit_s:g} s") from err
        expect(request.version == "v1beta1", f"version {request.version!r}, the kubelet speaks v1beta1")
        name = request.resource_name
        expect(_RESOURCE.fullmatch(name), f"resource name {name!r} is no domain/name")
        expect("kubernetes.io/" not in name, f"resource name {name!r} is Kubernetes' own")
        expect(resource in ("", name), f"resource name {name!r}, wanted {resource!r}")
        told = await self.stub.GetDevicePluginOptions(api_pb2.Empty(), timeout=self.limit_s)
        expect(
            not request.HasField("options") or request.options == told,
            "the options of the registration are not those that GetDevicePluginOptions gives",
        )

    async def listing(self) -> None:
        """Options and the list of devices."""
        step = self.bench.step
        async with step("options", "GetDevicePluginOptions answers, and the same twice"):
            self.options = await self.stub.GetDevicePluginOptions(api_pb2.Empty(), timeout=self.limit_s)
            again = await self.stub.GetDevicePluginOptions(api_pb2.Empty(), timeout=self.limit_s)
            expect(self.options == again, "two calls gave different options")
        async with step("first list", "ListAndWatch sends all devices at once, at least one of them"):
            stream = DeviceStream(self.stub)
            try:
                self.devices = await self._first(stream)
            finally:
                stream.close()
        async with step("unique ids", "every device of a list has an id, and no other has the same"):
            ids = [device.ID for device in self._told()]
            twice = sorted({one for one in ids if ids.count(one) > 1})
            expect(not twice, f"ids told more than once: {', '.join(twice)}")
            expect(all(ids), "a device has no id")
        async with step("health", "every device is Healthy or Unhealthy"):
            wrong = [f"{device.ID}: {device.health!r}" for device in self._told() if device.health not in _HEALTH]
            expect(not wrong, f"other words of health: {', '.join(wrong)}")
        async with step("stream stays open", "ListAndWatch lives as long as the plugin"):
            await self._stays_open()
        async with step("two lists", "a second ListAndWatch, as of a kubelet that restarted, tells the same devices"):
            first, second = DeviceStream(self.stub), DeviceStream(self.stub)
            try:
                known, anew = await self._first(first), await self._first(second)
            finally:
                first.close()
                second.close()
            seen = f"{sorted(d.ID for d in known)} and {sorted(d.ID for d in anew)}"
            expect({d.ID for d in known} == {d.ID for d in anew}, f"the streams tell different devices: {seen}")

    async def _stays_open(self) -> None:
        stream = DeviceStream(self.stub)
        try:
            async with asyncio.timeout(self.limit_s):
                await stream.next()
            try:
                async with asyncio.timeout(_STAYS_OPEN_S):
                    while stream.lists < 100:
                        await stream.next()
            except TimeoutError:
                return
            raise Failure(f"{stream.lists} lists within {_STAYS_OPEN_S:g} s; a list is sent when something changed")
        finally:
            stream.close()

    async def _first(self, stream: DeviceStream) -> tuple[api_pb2.Device, ...]:
        """The first list with a device in it."""
        try:
            async with asyncio.timeout(self.limit_s):
                while True:
                    found = await stream.next()
                    if found.devices:
                        return tuple(found.devices)
        except TimeoutError as err:
            self.bench.record("DevicePlugin.ListAndWatch", api_pb2.Empty(), f"{stream.lists} lists")
            lists = f"{stream.lists} empty lists" if stream.lists else "no list"
            raise Failure(f"{lists} within {self.limit_s:g} s") from err

    def _told(self) -> Sequence[api_pb2.Device]:
        if not self.devices:
            self.bench.skip("no device was told")
        told = api_pb2.ListAndWatchResponse(devices=self.devices)
        self.bench.record("DevicePlugin.ListAndWatch (the first list)", api_pb2.Empty(), told)
        return self.devices

    def _healthy(self) -> list[str]:
        if not self.ids:
            self.bench.skip("no healthy device was told")
        return self.ids

    async def preferring(self) -> None:
        """GetPreferredAllocation, where the plugin has it."""
        async with self.bench.step(
            "prefer",
            "GetPreferredAllocation gives as many devices as wanted, of the available ones, with those that must be",
        ):
            if not self.options.get_preferred_allocation_available:
                self.bench.skip("the plugin has no preference")
            ids = self._healthy()
            size, must = max(1, len(ids) // 2), ids[-1:]
            request = api_pb2.PreferredAllocationRequest()
            request.container_requests.add(available_deviceIDs=ids, must_include_deviceIDs=must, allocation_size=size)
            answer = await self.stub.GetPreferredAllocation(request, timeout=self.limit_s)
            expect(len(answer.container_responses) == 1, f"{len(answer.container_responses)} answers to one question")
            chosen = list(answer.container_responses[0].deviceIDs)
            expect(len(chosen) == len(set(chosen)) == size, f"{chosen}: wanted {size} different devices")
            expect(set(chosen) <= set(ids), f"{chosen}: not all of them are available")
            expect(set(must) <= set(chosen), f"{chosen}: {must} had to be among them")

    async def allocating(self) -> None:
        """Allocate, well and badly."""
        step = self.bench.step
        async with step("allocate", "Allocate of one device gives one answer, with whole paths and known permissions"):
            _check_answer(await self._allocate(self._healthy()[:1]))
        async with step("allocate twice", "the same Allocate again, as after a kubelet that restarted, gives the same"):
            one = self._healthy()[:1]
            first, second = await self._allocate(one), await self._allocate(one)
            expect(first == second, "two calls gave different answers")
        async with step("allocate all", "Allocate of all healthy devices at once gives one answer"):
            _check_answer(await self._allocate(self._healthy()))
        async with step("allocate for two", "Allocate for two containers gives two answers, in their order"):
            ids = self._healthy()
            if len(ids) < 2:
                self.bench.skip("there is but one device")
            both = await self._allocate(ids[:1], ids[1:2])
            apart = [(await self._allocate(ids[:1]))[0], (await self._allocate(ids[1:2]))[0]]
            expect(list(both) == apart, "the answers are not those of two single calls")
        async with step("allocate an unknown id", "Allocate of a device that is not there fails, whatever the code"):
            request = api_pb2.AllocateRequest()
            request.container_requests.add(devices_ids=[UNKNOWN_ID])
            refusals = [code for code in grpc.StatusCode if code not in _NO_ANSWER]
            await expect_code(self.stub.Allocate(request, timeout=self.limit_s), *refusals)

    async def _allocate(self, *containers: Sequence[str]) -> Sequence[api_pb2.ContainerAllocateResponse]:
        request = api_pb2.AllocateRequest()
        for ids in containers:
            request.container_requests.add(devices_ids=ids)
        answer = await self.stub.Allocate(request, timeout=self.limit_s)
        count = len(answer.container_responses)
        expect(count == len(containers), f"{count} answers for {len(containers)} containers")
        return answer.container_responses

    async def pre_starting(self) -> None:
        """PreStartContainer, where the plugin wants it."""
        async with self.bench.step("pre-start", "PreStartContainer succeeds, and again when the container restarts"):
            if not self.options.pre_start_required:
                self.bench.skip("the plugin does not want to be told")
            request = api_pb2.PreStartContainerRequest(devices_ids=self._healthy()[:1])
            await self.stub.PreStartContainer(request, timeout=self.limit_s)
            await self.stub.PreStartContainer(request, timeout=self.limit_s)

    async def afterwards(self) -> None:
        """What was asked and refused has left no trace."""
        async with self.bench.step("still alive", "after all that the plugin tells the same devices"):
            known = {device.ID for device in self._told()}
            stream = DeviceStream(self.stub)
            try:
                now = {device.ID for device in await self._first(stream)}
            finally:
                stream.close()
            expect(now == known, f"told {sorted(known)} at first and {sorted(now)} at last")


_NO_ANSWER = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNIMPLEMENTED,
)


def _check_answer(answers: Sequence[api_pb2.ContainerAllocateResponse]) -> None:
    """Raises Failure for what no runtime could use."""
    for answer in answers:
        for node in answer.devices:
            paths = f"device {node.host_path!r} as {node.container_path!r}"
            expect(node.host_path.startswith("/") and node.container_path.startswith("/"), f"{paths}: no whole paths")
            expect(node.permissions and not set(node.permissions) - set("rwm"), f"{paths}: {node.permissions!r}")
        for mount in answer.mounts:
            paths = f"mount {mount.host_path!r} as {mount.container_path!r}"
            expect(mount.host_path.startswith("/") and mount.container_path.startswith("/"), f"{paths}: no whole paths")
        expect(all(answer.envs), "a variable has no name")
        wrong = [one.name for one in answer.cdi_devices if "/" not in one.name or "=" not in one.name]
        expect(not wrong, f"CDI names that are no VENDOR/CLASS=NAME: {', '.join(wrong)}")
