"""Calls as a report shows them, and interceptors that record what goes over a gRPC channel."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

_LONGEST = 4000
# Fields that carry secrets in the contracts of plugins (csi.v1 marks them csi_secret); their values are never shown.
_SECRET_FIELDS = ("secrets",)

Record = Callable[[str, object, object], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One call as text: its name, what was sent, what came back or how it failed."""

    name: str
    request: str
    answer: str


def shown(value: object) -> str:
    """A request or answer as text, on one line where it is a message, cut where it is very long."""
    if value is None:
        text = ""
    elif isinstance(value, Message):
        text = MessageToString(_without_secrets(value), as_one_line=True)
    elif isinstance(value, grpc.aio.AioRpcError):
        text = f"{value.code().name}: {value.details()}"
    elif isinstance(value, bytes):
        text = value.decode(errors="replace")
    elif isinstance(value, Mapping):
        text = json.dumps(value, default=str)
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _without_secrets(message: Message) -> Message:
    names = [name for name in _SECRET_FIELDS if name in message.DESCRIPTOR.fields_by_name]
    if not any(getattr(message, name) for name in names):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    for name in names:
        field = getattr(copy, name)
        if isinstance(field, str):
            setattr(copy, name, "(hidden)")
            continue
        for key in list(field):
            field[key] = "(hidden)"
    return copy


def interceptors(record: Record) -> list[grpc.aio.ClientInterceptor]:
    """One per shape of a call."""
    kinds: list[Any] = [_UnaryUnary(record), _UnaryStream(record), _StreamUnary(record), _StreamStream(record)]
    return kinds


def _name(details: grpc.aio.ClientCallDetails) -> str:
    # The runtime gives bytes where its stubs say text.
    method: str | bytes = details.method
    return (method if isinstance(method, str) else method.decode()).rpartition("/")[2]


async def _settled(record: Record, name: str, request: object, call: Any) -> Any:
    """Waits for a single answer and records it; the call keeps its outcome for the caller."""
    try:
        record(name, request, await call)
    except grpc.aio.AioRpcError as err:
        record(name, request, err)
    return call


async def _heard(record: Record, name: str, request: object, call: AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Passes a stream's answers on, each recorded."""
    try:
        async for answer in call:
            record(name, request, answer)
            yield answer
    except grpc.aio.AioRpcError as err:
        record(name, request, err)
        raise


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, record: Record) -> None:
        self._record = record

    async def intercept_unary_unary(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        return await _settled(self._record, _name(details), request, await continuation(details, request))


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, record: Record) -> None:
        self._record = record

    async def intercept_unary_stream(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        return _heard(self._record, _name(details), request, await continuation(details, request))


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, record: Record) -> None:
        self._record = record

    async def intercept_stream_unary(
        self, continuation: Any, details: grpc.aio.ClientCallDetails, requests: Any
    ) -> Any:
        return await _settled(self._record, _name(details), "(stream)", await continuation(details, requests))


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, record: Record) -> None:
        self._record = record

    async def intercept_stream_stream(
        self, continuation: Any, details: grpc.aio.ClientCallDetails, requests: Any
    ) -> Any:
        return _heard(self._record, _name(details), "(stream)", await continuation(details, requests))
