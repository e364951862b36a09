"""FlowSchemas tell whether their priority level is there."""

from __future__ import annotations

from tests.unit.apiserver.fake_objects import FakeObjects
from tiphys.api.flowcontrol.v1.flowcontrol_pb2 import FlowSchema, PriorityLevelConfiguration
from tiphys_apiserver.bootstrap.flow_control import ensure_flow_control
from tiphys_apiserver.server.flow_control.dangling import DanglingConditions
from tiphys_component.clock import FakeClock


async def test_A49_schema_tells_whether_its_level_is_there() -> None:
    objects = FakeObjects()
    await ensure_flow_control(objects)
    conditions = DanglingConditions(objects, FakeClock())
    await conditions.look()
    assert {schema.status.conditions[0].status for schema in await objects.list(FlowSchema)} == {"False"}
    await objects.delete(PriorityLevelConfiguration, "system")
    await conditions.look()
    told = (await objects.get(FlowSchema, "system-nodes")).status.conditions
    assert [(one.type, one.status, one.reason) for one in told] == [("Dangling", "True", "NotFound")]
    assert told[0].message.endswith('named "system" but there is no such object')


async def test_nothing_is_written_twice() -> None:
    objects = FakeObjects()
    await ensure_flow_control(objects)
    conditions = DanglingConditions(objects, FakeClock())
    await conditions.look()
    version = objects.version(FlowSchema)
    await conditions.look()
    await DanglingConditions(objects, FakeClock()).look()
    assert objects.version(FlowSchema) == version
