"""The gRPC face of the controller manager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from tiphys.controllermanager.v1 import controllermanager_pb2, controllermanager_pb2_grpc
from tiphys_apimachinery.errors import APIError, NotFound, ServiceUnavailable
from tiphys_component.rpc import Servicer
from tiphys_controller_manager.dump import MOST, LoopState
from tiphys_controller_manager.manager import Manager


class ControllerManagerServicer(controllermanager_pb2_grpc.ControllerManagerServiceServicer):
    """Serves tiphys.controllermanager.v1.ControllerManagerService."""

    def __init__(self, manager: Manager, *, identity: str, leader: Callable[[], str]) -> None:
        self._manager = manager
        self._identity = identity
        self._leader = leader

    async def ListControllers(
        self, request: controllermanager_pb2.ListControllersRequest, context: Any
    ) -> controllermanager_pb2.ListControllersResponse:
        """Every controller of the registry and how it fares."""
        answer = controllermanager_pb2.ListControllersResponse(leader=self._leader(), identity=self._identity)
        for state in self._manager.states():
            answer.controllers.add(
                name=state.name,
                enabled=state.enabled,
                running=state.running,
                queue_depth=state.queue_depth,
                delayed=state.delayed,
                reconciles=state.reconciles,
                failures=state.failures,
                last_error=state.last_error,
                last_error_key=state.last_error_key,
            )
        return answer

    async def Trigger(
        self, request: controllermanager_pb2.TriggerRequest, context: Any
    ) -> controllermanager_pb2.TriggerResponse:
        """Queue a key. Raises NotFound for an unknown controller, ServiceUnavailable for one that does not run here."""
        if not self._manager.trigger(request.controller, request.key):
            raise self._refusal(request.controller)
        return controllermanager_pb2.TriggerResponse()

    async def Dump(
        self, request: controllermanager_pb2.DumpRequest, context: Any
    ) -> controllermanager_pb2.DumpResponse:
        """All that a controller knows. Raises as Trigger does."""
        state = self._manager.dump(request.controller, most=request.limit if request.limit > 0 else MOST)
        if state is None:
            raise self._refusal(request.controller)
        return _dumped(state)

    def _refusal(self, controller: str) -> APIError:
        if controller not in {state.name for state in self._manager.states()}:
            return NotFound.of("controllers", controller)
        return ServiceUnavailable(f"controller {controller} does not run in this process")


def _dumped(state: LoopState) -> controllermanager_pb2.DumpResponse:
    answer = controllermanager_pb2.DumpResponse(memory_json=orjson.dumps(state.memory).decode())
    for view in state.views:
        answer.views.add(
            message=view.message,
            synced=view.is_synced,
            resource_version=view.resource_version,
            objects=view.objects,
            keys=view.keys,
        )
    queue = answer.queue
    queue.waiting.extend(state.queue.waiting)
    queue.working.extend(state.queue.working)
    queue.again.extend(state.queue.again)
    for key, (due_in_s, failures) in state.queue.delayed.items():
        queue.delayed.add(key=key, due_in_s=due_in_s, failures=failures)
    for message, one in state.unseen:
        version = one.version if one.version is not None else -1
        answer.expectations.add(
            message=message, key=one.key, resource_version=version, awaited=one.awaited, age_s=one.age_s
        )
    return answer


def servicer(manager: Manager, *, identity: str, leader: Callable[[], str]) -> Servicer:
    """What the server registers."""
    name = controllermanager_pb2.DESCRIPTOR.services_by_name["ControllerManagerService"].full_name
    add = controllermanager_pb2_grpc.add_ControllerManagerServiceServicer_to_server
    served = ControllerManagerServicer(manager, identity=identity, leader=leader)
    return Servicer((name,), lambda server: add(served, server))
