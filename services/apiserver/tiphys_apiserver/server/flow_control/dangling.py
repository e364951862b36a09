"""Says on each FlowSchema whether the priority level that it names is there."""

from __future__ import annotations

from typing import Any

from tiphys.api.flowcontrol.v1.flowcontrol_pb2 import FlowSchema, PriorityLevelConfiguration
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)

_DANGLING = "Dangling"
# A person reads it: it may be a little late.
_LOOK_EVERY_S = 10.0


class DanglingConditions:
    """Keeps the condition true; any number of servers may do it, as they write the same."""

    def __init__(self, objects: ObjectAccess, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock
        self._seen = (0, 0)

    async def run(self) -> None:
        """Look for ever. What can't be written is tried again at the next look."""
        while True:
            try:
                await self.look()
            except APIError as err:
                _log.warning("conditions of flow schemas can't be written, trying again", err=str(err))
            await self._clock.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Bring every schema up to date, if anything has changed since the last look."""
        versions = (self._objects.version(PriorityLevelConfiguration), self._objects.version(FlowSchema))
        if versions == self._seen or 0 in versions:
            return
        levels = {level.metadata.name for level in await self._objects.list(PriorityLevelConfiguration)}
        for schema in await self._objects.list(FlowSchema):
            wanted = "False" if schema.spec.priorityLevelConfiguration.name in levels else "True"
            if _status(schema) != wanted:
                await self._tell(schema.metadata.name, wanted)
        self._seen = versions

    async def _tell(self, name: str, wanted: str) -> None:
        def change(schema: Any) -> None:
            condition = next((one for one in schema.status.conditions if one.type == _DANGLING), None)
            if condition is None:
                condition = schema.status.conditions.add(type=_DANGLING)
            condition.status = wanted
            condition.reason = "Found" if wanted == "False" else "NotFound"
            level = schema.spec.priorityLevelConfiguration.name
            tail = "and it exists" if wanted == "False" else "but there is no such object"
            condition.message = (
                f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" {tail}'
            )
            condition.lastTransitionTime.seconds = int(self._clock.now().timestamp())

        try:
            await self._objects.modify(FlowSchema, name, "", change, subresource="status")
        except NotFound:
            # Deleted meanwhile.
            return


def _status(schema: Any) -> str:
    return next((str(one.status) for one in schema.status.conditions if one.type == _DANGLING), "")
