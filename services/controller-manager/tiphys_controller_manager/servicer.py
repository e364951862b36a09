"""The gRPC face of the controller manager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiphys.controllermanager.v1 import controllermanager_pb2, controllermanager_pb2_grpc
from tiphys_apimachinery.errors import NotFound, ServiceUnavailable
from tiphys_component.rpc import Servicer
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
            if request.controller not in {state.name for state in self._manager.states()}:
                raise NotFound.of("controllers", request.controller)
            raise ServiceUnavailable(f"controller {request.controller} does not run in this process")
        return controllermanager_pb2.TriggerResponse()


def servicer(manager: Manager, *, identity: str, leader: Callable[[], str]) -> Servicer:
    """What the server registers."""
    name = controllermanager_pb2.DESCRIPTOR.services_by_name["ControllerManagerService"].full_name
    add = controllermanager_pb2_grpc.add_ControllerManagerServiceServicer_to_server
    served = ControllerManagerServicer(manager, identity=identity, leader=leader)
    return Servicer((name,), lambda server: add(served, server))
