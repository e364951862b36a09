"""What happens in the runtime, as a stream.

CRI has GetContainerEvents since containerd 1.7; containerd 1.6 has only its own event service, on the same socket.
CRI's is tried first: a runtime without it refuses at once with UNIMPLEMENTED. containerd 1.7 serves it, but with one
queue for all readers, so a second reader takes events from the first; the kubelet is the only one on a node.

A Go server sends no headers before its first message, so nobody can tell when a stream is open: what happens in the
first moment may be missed, and readers list once more a little after the start.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
import grpc.aio

from tiphys.thirdparty.containerd import events_pb2, task_events_pb2, types_pb2
from tiphys.thirdparty.containerd.events_pb2_grpc import EventsStub
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys.thirdparty.cri.v1.api_pb2_grpc import RuntimeServiceStub
from tiphys_cri.errors import CRIUnavailable, from_rpc_error
from tiphys_cri.interface import RuntimeEvent, RuntimeEventType

CRI_NAMESPACE = "k8s.io"
_CRI_TYPES = {
    cri.CONTAINER_STARTED_EVENT: RuntimeEventType.STARTED,
    cri.CONTAINER_STOPPED_EVENT: RuntimeEventType.STOPPED,
    cri.CONTAINER_DELETED_EVENT: RuntimeEventType.DELETED,
}
_FILTERS = tuple(f'namespace=={CRI_NAMESPACE},topic=="/tasks/{name}"' for name in ("start", "exit", "delete", "oom"))


async def stream_events(channel: grpc.aio.Channel) -> AsyncGenerator[RuntimeEvent]:
    """Events from now on, from CRI or from containerd itself; ends by a CRIError.

    Raises CRIUnimplemented if the runtime has neither.
    """
    try:
        async for event in _cri_events(channel):
            yield event
    except grpc.aio.AioRpcError as err:
        if err.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise from_rpc_error(err, "GetContainerEvents") from err
    try:
        async for event in _containerd_events(channel):
            yield event
    except grpc.aio.AioRpcError as err:
        raise from_rpc_error(err, "Subscribe") from err
    raise CRIUnavailable("the runtime ended its event stream", call="Subscribe")


async def _cri_events(channel: grpc.aio.Channel) -> AsyncGenerator[RuntimeEvent]:
    call = RuntimeServiceStub(channel).GetContainerEvents(cri.GetEventsRequest())
    try:
        async for message in call:
            kind = _CRI_TYPES.get(message.container_event_type)
            if kind is not None:
                yield RuntimeEvent(message.container_id, kind)
    finally:
        call.cancel()
    raise CRIUnavailable("the runtime ended its event stream", call="GetContainerEvents")


async def _containerd_events(channel: grpc.aio.Channel) -> AsyncGenerator[RuntimeEvent]:
    call = EventsStub(channel).Subscribe(events_pb2.SubscribeRequest(filters=_FILTERS))
    try:
        async for envelope in call:
            event = runtime_event(envelope)
            if event is not None:
                yield event
    finally:
        call.cancel()


def runtime_event(envelope: types_pb2.Envelope) -> RuntimeEvent | None:
    """What an event of containerd means to us; None for the end of a mere exec in a container."""
    if envelope.topic == "/tasks/start":
        started = task_events_pb2.TaskStart.FromString(envelope.event.value)
        return RuntimeEvent(started.container_id, RuntimeEventType.STARTED)
    if envelope.topic == "/tasks/oom":
        oom = task_events_pb2.TaskOOM.FromString(envelope.event.value)
        return RuntimeEvent(oom.container_id, RuntimeEventType.OOM)
    if envelope.topic == "/tasks/exit":
        ended = task_events_pb2.TaskExit.FromString(envelope.event.value)
        # The id is the exec's own when a command in the container ended, and the container's when that did.
        if ended.id not in ("", ended.container_id):
            return None
        return RuntimeEvent(ended.container_id, RuntimeEventType.STOPPED)
    if envelope.topic == "/tasks/delete":
        deleted = task_events_pb2.TaskDelete.FromString(envelope.event.value)
        if deleted.id not in ("", deleted.container_id):
            return None
        return RuntimeEvent(deleted.container_id, RuntimeEventType.STOPPED)
    return None
