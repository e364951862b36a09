"""Bodies to messages, and what is wrong with a body said as Kubernetes says it."""

from __future__ import annotations

from typing import Any

import orjson
from google.protobuf.message import DecodeError, Message

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.codec import json_codec, proto_codec, yaml_codec
from tiphys_apimachinery.codec.json_strict import duplicate_members
from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.registry.strategy import NewObjects
from tiphys_apiserver.rest.exchange import Exchange
from tiphys_apiserver.rest.negotiate import Media, body_media
from tiphys_apiserver.server.call import Call
from tiphys_component.proc import to_thread

STRICT, WARN, IGNORE = "Strict", "Warn", "Ignore"
# YAML up to this takes less than 0.1 s.
_LONG_YAML_BYTES = 16 * 1024

# Kinds in versions that are no longer served, and are the same in another: clients of old still send them.
# Source: kubernetes pkg/registry/core/pod/storage/eviction.go, AcceptsGroupVersion.
_STILL_TAKEN = {("policy/v1beta1", "Eviction"): "policy/v1"}


async def ready_to_parse(body: bytes, media: Media) -> tuple[bytes, Media]:
    """The body, or where it is long YAML its JSON, read in a thread: that takes 13 s for 3 MB, and others must go on.

    Raises BadRequest.
    """
    if media is not Media.YAML or len(body) < _LONG_YAML_BYTES:
        return body, media
    return orjson.dumps(await to_thread(yaml_codec.parse, body)), Media.JSON


def decode_object(
    cls: type[Message],
    body: bytes,
    media: Media,
    call: Call,
    *,
    api_version: str,
    kind: str,
    known: NewObjects | None = None,
) -> Any:
    """The object in a body. Raises BadRequest for what can't be read, is another kind, or has unknown
    fields where the call asks for Strict; with Warn (the default) those become warnings.

    known reads objects in JSON where it is given; call.is_filled tells what it says of their defaults.
    """
    if media is Media.PROTOBUF:
        return _decode_protobuf(cls, api_version, kind, body)
    document = parse_document(body, media)
    check_kind(document, api_version, kind)
    if media is not Media.JSON:
        return decode_document(cls, document, call)
    return decode_document(cls, document, call, body, known=known)


def parse_document(body: bytes, media: Media) -> dict[str, Any]:
    """The mapping in a JSON or YAML body. Raises BadRequest."""
    document = json_codec.parse(body) if media is Media.JSON else yaml_codec.parse(body)
    if not isinstance(document, dict):
        raise BadRequest("couldn't get version/kind; json parse error: the body is not an object")
    return document


def check_kind(document: dict[str, Any], api_version: str, kind: str) -> None:
    """Raise BadRequest when a document says that it is something else; one that says nothing passes."""
    said_kind = document.get("kind") or kind
    said_version = document.get("apiVersion") or api_version
    if not isinstance(said_kind, str) or not isinstance(said_version, str):
        raise BadRequest("couldn't get version/kind; json parse error: apiVersion and kind must be strings")
    said_version = _STILL_TAKEN.get((said_version, said_kind), said_version)
    if said_kind == kind and said_version == api_version:
        return
    if said_kind == kind:
        raise BadRequest(
            f"the API version in the data ({said_version}) does not match the expected API version ({api_version})"
        )
    raise BadRequest(
        f'{said_kind} in version "{said_version}" cannot be handled as a {kind}:'
        f" this resource takes {kind} of {api_version}"
    )


def decode_document(
    cls: type[Message], document: dict[str, Any], call: Call, body: bytes = b"", *, known: NewObjects | None = None
) -> Any:
    """The object in a document; unknown members as decode_object treats them.

    body is the JSON text behind the document, looked at for repeated members where the call says
    how to treat them.
    """
    sink = json_codec.FieldSink() if call.field_validation != IGNORE else None
    if known is not None:
        obj, call.is_filled = known.read(document, sink)
    else:
        obj = json_codec.from_json(cls, document, sink)
    if sink is None:
        return obj
    if body and call.field_validation:
        sink.duplicate += duplicate_members(body)
    if call.field_validation == STRICT:
        error = json_codec.strict_error(cls, sink)
        if error is not None:
            raise error
    for text in sink.messages():
        call.warn(text)
    return obj


def _decode_protobuf(cls: type[Message], api_version: str, kind: str, body: bytes) -> Any:
    said_version, said_kind, raw = proto_codec.decode_envelope(body)
    check_kind({"apiVersion": said_version, "kind": said_kind}, api_version, kind)
    try:
        obj = cls.FromString(raw)
    except DecodeError as err:
        raise BadRequest(f"the body is no {kind} in Kubernetes' protobuf form: {err}") from err
    json_codec.check_sayable(obj)
    return obj


async def read_delete_options(exchange: Exchange, call: Call) -> meta_pb2.DeleteOptions:
    """DeleteOptions from the body, or from the query where there is no body. Raises BadRequest."""
    body = await exchange.body()
    if body:
        media = body_media(exchange.headers.get("Content-Type", ""))
        if media is Media.PROTOBUF:
            try:
                return meta_pb2.DeleteOptions.FromString(proto_codec.decode_envelope(body)[2])
            except DecodeError as err:
                raise BadRequest(f"the body is no DeleteOptions in Kubernetes' protobuf form: {err}") from err
        body, media = await ready_to_parse(body, media)
        read: meta_pb2.DeleteOptions = decode_document(meta_pb2.DeleteOptions, parse_document(body, media), call)
        return read
    options = meta_pb2.DeleteOptions()
    grace = exchange.number("gracePeriodSeconds")
    if grace is not None:
        options.gracePeriodSeconds = grace
    if exchange.query.get("propagationPolicy"):
        options.propagationPolicy = exchange.query["propagationPolicy"]
    if "orphanDependents" in exchange.query:
        options.orphanDependents = exchange.flag("orphanDependents")
    return options
