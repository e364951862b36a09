"""Writes that bring EndpointSlices up to date, and who carries them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.errors import APIError
from tiphys_client.client import Client
from tiphys_controller_manager.expectations import Expectations

EndpointSlice = discovery_pb2.EndpointSlice


@dataclass(slots=True)
class SlicePlan:
    """Writes that bring the slices of a Service up to date."""

    create: list[EndpointSlice] = field(default_factory=list)
    update: list[EndpointSlice] = field(default_factory=list)
    delete: list[EndpointSlice] = field(default_factory=list)


class SliceWriter:
    """Carries plans out; the key of a Service is that of its expectations."""

    def __init__(self, client: Client, expectations: Expectations) -> None:
        self._client = client
        self._expectations = expectations

    async def write(self, key: str, plan: SlicePlan) -> None:
        """Creates first: an endpoint that moves is in two slices for a moment, never in none. Raises errors."""
        for result in await self._client.batch_create(plan.create):
            if isinstance(result, APIError):
                raise result
            self._expectations.wrote(key, result)
        for item in plan.update:
            self._expectations.wrote(key, await self._client.update(item))
        await self._delete(key, plan.delete)

    async def _delete(self, key: str, slices: Sequence[EndpointSlice]) -> None:
        for item in slices:
            metadata = item.metadata
            self._expectations.deleting(key, [item])
            try:
                await self._client.delete(
                    EndpointSlice,
                    metadata.name,
                    metadata.namespace,
                    preconditions_uid=metadata.uid,
                    absent_ok=True,
                )
            except APIError:
                self._expectations.not_changed(key, item)
                raise
