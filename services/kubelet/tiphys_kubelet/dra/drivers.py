"""The DRA drivers that have registered on this node, and the calls to them, bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import grpc
import grpc.aio

from tiphys.thirdparty.dra.v1 import api_pb2, api_pb2_grpc
from tiphys_component import rpc
from tiphys_kubelet.dra.prepared import PreparedClaim, PreparedDevice
from tiphys_kubelet.plugin_watcher import PluginError

# Source: k8s.io/kubelet pkg/apis/dra/v1, the name of the service among a plugin's versions; kubelet's call timeout.
VERSION: Final = "v1.DRAPlugin"
CALL_TIMEOUT_S: Final = 45.0


class DriverError(Exception):
    """A driver refused, failed, did not answer in time, or is not there."""


class DraDrivers:
    """The drivers by name, and the PluginHandler of type DRAPlugin. `on_change` is told when one came."""

    def __init__(self, on_change: Callable[[], None], *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._on_change = on_change
        self._timeout_s = timeout_s
        self._endpoints: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._endpoints))

    async def validate(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Takes drivers that speak v1."""
        if VERSION not in versions:
            told = ", ".join(f'"{version}"' for version in versions)
            raise PluginError(f'DRA driver {name}: none of its versions [{told}] is supported, needed is "{VERSION}"')

    async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Gives the driver claims from now on."""
        self._endpoints[name] = endpoint
        self._on_change()

    async def deregister(self, name: str) -> None:
        """The driver is gone; what it has prepared stays prepared."""
        self._endpoints.pop(name, None)

    async def prepare(
        self, driver: str, claims: Sequence[PreparedClaim]
    ) -> Mapping[str, Sequence[PreparedDevice] | DriverError]:
        """What came of each claim, by its uid. Raises DriverError where nothing did."""
        request = api_pb2.NodePrepareResourcesRequest(claims=[_named(claim) for claim in claims])
        async with rpc.channel(self._address(driver)) as channel:
            stub: api_pb2_grpc.DRAPluginAsyncStub = api_pb2_grpc.DRAPluginStub(channel)
            try:
                answer = await stub.NodePrepareResources(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as err:
                raise DriverError(f"NodePrepareResources: {driver}: {err.details()}") from err
        return {claim.uid: _prepared(driver, claim, answer.claims) for claim in claims}

    async def unprepare(self, driver: str, claim: PreparedClaim) -> None:
        """Undoes it; may be repeated. Raises DriverError."""
        request = api_pb2.NodeUnprepareResourcesRequest(claims=[_named(claim)])
        async with rpc.channel(self._address(driver)) as channel:
            stub: api_pb2_grpc.DRAPluginAsyncStub = api_pb2_grpc.DRAPluginStub(channel)
            try:
                answer = await stub.NodeUnprepareResources(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as err:
                raise DriverError(f"NodeUnprepareResources: {driver}: {err.details()}") from err
        if claim.uid not in answer.claims:
            raise DriverError(f"NodeUnprepareResources: {driver} left out the claim {claim.name}")
        if answer.claims[claim.uid].error:
            raise DriverError(f"NodeUnprepareResources: {driver}: {answer.claims[claim.uid].error}")

    def _address(self, driver: str) -> str:
        endpoint = self._endpoints.get(driver)
        if endpoint is None:
            raise DriverError(f"DRA driver {driver} is not registered")
        return rpc.unix_address(endpoint)


def _named(claim: PreparedClaim) -> api_pb2.Claim:
    return api_pb2.Claim(namespace=claim.namespace, uid=claim.uid, name=claim.name)


def _prepared(
    driver: str, claim: PreparedClaim, answers: Mapping[str, api_pb2.NodePrepareResourceResponse]
) -> Sequence[PreparedDevice] | DriverError:
    answer = answers.get(claim.uid)
    if answer is None:
        return DriverError(f"NodePrepareResources: {driver} left out the claim {claim.name}")
    if answer.error:
        return DriverError(f"NodePrepareResources: {driver}: claim {claim.name}: {answer.error}")
    return [
        PreparedDevice(one.pool_name, one.device_name, tuple(one.request_names), tuple(one.cdi_device_ids))
        for one in answer.devices
    ]
