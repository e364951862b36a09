"""Claims of a node: drivers are asked once, what they prepared is remembered, and given up whatever came between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.claimed import claim, use
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.resource.v1.resource_pb2 import ResourceClaim
from tiphys_client.fake import FakeClient
from tiphys_component.clock import FakeClock
from tiphys_kubelet.dra import prepared
from tiphys_kubelet.dra.drivers import DraDrivers, DriverError
from tiphys_kubelet.dra.manager import ClaimManager, ClaimsNotReady
from tiphys_kubelet.dra.prepared import CorruptState, PreparedClaim, PreparedDevice
from tiphys_kubelet.plugin_watcher import PluginError

DRIVER = "gpu.example"


class FakeDrivers(DraDrivers):
    """A driver that prepares everything, unless it is told to fail; its calls are noted."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self._endpoints = {DRIVER: "unused"}
        self.calls: list[tuple[str, str]] = []
        self.fault = ""

    async def prepare(
        self, driver: str, claims: Sequence[PreparedClaim]
    ) -> Mapping[str, Sequence[PreparedDevice] | DriverError]:
        self.calls += [("prepare", one.name) for one in claims]
        if self.fault:
            return {one.uid: DriverError(self.fault) for one in claims}
        return {one.uid: [PreparedDevice("n1", "a", ("r0",), (f"{driver}/gpu={one.name}",))] for one in claims}

    async def unprepare(self, driver: str, claim: PreparedClaim) -> None:
        self.calls.append(("unprepare", claim.name))
        if self.fault:
            raise DriverError(self.fault)


def pod(name: str, *claims: str) -> Pod:
    made = Pod()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = name, "default", f"uid-{name}"
    made.spec.containers.add(name="c", image="i")
    return use(made, *claims)


def given(name: str, *pods: str) -> ResourceClaim:
    made = claim(name)
    made.status.allocation.devices.results.add(request="r0", driver=DRIVER, pool="n1", device="a")
    for one in pods:
        made.status.reservedFor.add(resource="pods", name=one, uid=f"uid-{one}")
    return made


class Side:
    """A kubelet's claims, and what they are about."""

    def __init__(self, folder: Path, *claims: ResourceClaim) -> None:
        self.folder, self.drivers = folder, FakeDrivers()
        self.client = FakeClient(FakeClock())
        self.client.seed(*claims)
        self.manager = self.made()

    def made(self) -> ClaimManager:
        """A manager as after a start, before it has read its file."""
        client: Any = self.client
        return ClaimManager(self.folder, client, self.drivers)


def cdi(manager: ClaimManager, of: Pod) -> list[str]:
    return [one.name for one in manager.cdi_devices(of, of.spec.containers[0])]


async def test_C28_a_pod_gets_what_its_drivers_prepared_and_they_are_asked_once(tmp_path: Path) -> None:
    side = Side(tmp_path, given("x", "web"))
    web = pod("web", "x")
    await side.manager.prepare(web)
    await side.manager.prepare(web)
    assert side.drivers.calls == [("prepare", "x")]
    assert cdi(side.manager, web) == [f"{DRIVER}/gpu=x"]
    await side.manager.release("uid-web")
    await side.manager.release("uid-web")
    assert side.drivers.calls == [("prepare", "x"), ("unprepare", "x")]
    assert side.manager.owners() == frozenset()


async def test_C28_a_shared_claim_is_given_up_with_its_last_pod(tmp_path: Path) -> None:
    side = Side(tmp_path, given("x", "one", "two"))
    for name in ("one", "two"):
        await side.manager.prepare(pod(name, "x"))
    await side.manager.release("uid-one")
    assert side.drivers.calls == [("prepare", "x")]
    assert cdi(side.manager, pod("two", "x")) == [f"{DRIVER}/gpu=x"]
    await side.manager.release("uid-two")
    assert side.drivers.calls[-1] == ("unprepare", "x")


async def test_C28_a_kubelet_that_was_killed_gives_up_what_it_had_prepared(tmp_path: Path) -> None:
    side = Side(tmp_path, given("x", "web"))
    await side.manager.prepare(pod("web", "x"))
    later = side.made()
    await later.load()
    assert later.owners() == {"uid-web"}
    await later.release("uid-web")
    assert side.drivers.calls[-1] == ("unprepare", "x")
    assert prepared.read(tmp_path / prepared.FILE_NAME) == []


async def test_C28_a_kubelet_that_started_anew_asks_drivers_again_before_a_container_does(tmp_path: Path) -> None:
    side = Side(tmp_path, given("x", "web"))
    await side.manager.prepare(pod("web", "x"))
    later = side.made()
    await later.load()
    assert cdi(later, pod("web", "x")) == []
    await later.prepare(pod("web", "x"))
    assert side.drivers.calls == [("prepare", "x"), ("prepare", "x")]
    assert cdi(later, pod("web", "x")) == [f"{DRIVER}/gpu=x"]


async def test_C28_what_a_driver_failed_at_is_tried_again_and_known_meanwhile(tmp_path: Path) -> None:
    side = Side(tmp_path, given("x", "web"))
    side.drivers.fault = "no power"
    with pytest.raises(ClaimsNotReady, match="no power"):
        await side.manager.prepare(pod("web", "x"))
    # It may have done half of it: whoever starts next must know.
    assert [one.name for one in prepared.read(tmp_path / prepared.FILE_NAME)] == ["x"]
    with pytest.raises(ClaimsNotReady, match="no power"):
        await side.manager.release("uid-web")
    side.drivers.fault = ""
    await side.manager.release("uid-web")
    assert side.manager.owners() == frozenset()


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        pytest.param(claim("x"), "ResourceClaim x is not allocated", id="nothing given"),
        pytest.param(given("x", "other"), "not allowed to use ResourceClaim x", id="reserved for another"),
        pytest.param(given("y"), "failed to fetch ResourceClaim x", id="gone"),
    ],
)
async def test_C28_a_pod_uses_no_claim_that_is_not_its_own(tmp_path: Path, stored: ResourceClaim, why: str) -> None:
    side = Side(tmp_path, stored)
    with pytest.raises(ClaimsNotReady, match=why):
        await side.manager.prepare(pod("web", "x"))
    assert side.drivers.calls == []


async def test_C28_nothing_is_noted_for_a_driver_that_is_not_there(tmp_path: Path) -> None:
    side = Side(tmp_path, given("x", "web"))
    await side.drivers.deregister(DRIVER)
    with pytest.raises(ClaimsNotReady, match=r"DRA driver gpu\.example is not registered"):
        await side.manager.prepare(pod("web", "x"))
    assert side.manager.owners() == frozenset()


async def test_C28_a_file_that_can_not_be_read_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / prepared.FILE_NAME).write_text('{"Claims": [], "Checksum": 1}')
    side = Side(tmp_path)
    await side.manager.load()
    assert (tmp_path / f"{prepared.FILE_NAME}.corrupt").exists()


def test_C28_the_file_holds_what_was_written() -> None:
    device = PreparedDevice("n1", "a", ("r0", "r1/c0"), ("v/c=1", "v/c=2"))
    claims = [
        PreparedClaim("default", "x", "1", frozenset({"p", "q"}), ("d", "e"), {"d": (device,)}),
        PreparedClaim("default", "y", "2", frozenset(), (), {}),
    ]
    content = prepared.encode(claims)
    assert prepared.decode(content) == claims
    with pytest.raises(CorruptState):
        prepared.decode(content.replace(b'"x"', b'"z"'))
    with pytest.raises(CorruptState):
        prepared.decode(b"[]")


@pytest.mark.parametrize(
    ("request_name", "expected"),
    [
        pytest.param("", ["one", "two", "every"], id="whole claim"),
        pytest.param("r0", ["one", "every"], id="a request"),
        pytest.param("r1", ["two", "every"], id="a request whose choice was given"),
    ],
)
def test_C28_a_container_gets_the_devices_of_its_request(request_name: str, expected: list[str]) -> None:
    devices = (
        PreparedDevice("n1", "a", ("r0",), ("one",)),
        PreparedDevice("n1", "b", ("r1/c0",), ("two",)),
        PreparedDevice("n1", "c", (), ("every",)),
    )
    made = PreparedClaim("default", "x", "1", frozenset(), ("d",), {"d": devices})
    assert list(made.cdi_ids(request_name)) == expected


async def test_C28_only_drivers_that_speak_v1_are_taken() -> None:
    came: list[bool] = []
    drivers = DraDrivers(lambda: came.append(True))
    with pytest.raises(PluginError, match=r"none of its versions"):
        await drivers.validate("d", "/s", ("v1beta1.DRAPlugin",))
    await drivers.validate("d", "/s", ("v1beta1.DRAPlugin", "v1.DRAPlugin"))
    await drivers.register("d", "/s", ("v1.DRAPlugin",))
    assert (list(drivers), came) == (["d"], [True])
    await drivers.deregister("d")
    with pytest.raises(DriverError, match="not registered"):
        await drivers.prepare("d", ())
