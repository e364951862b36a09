"""Requests for resources: from an exchange to an endpoint and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import NotFound, UnsupportedMediaType
from tiphys_apiserver.endpoints import create as creating
from tiphys_apiserver.endpoints import delete as deleting
from tiphys_apiserver.endpoints import get as getting
from tiphys_apiserver.endpoints import list as listing
from tiphys_apiserver.endpoints import patch as patching
from tiphys_apiserver.endpoints import update as updating
from tiphys_apiserver.endpoints import watch as watching
from tiphys_apiserver.endpoints.hall import Hall, refuse_verb
from tiphys_apiserver.endpoints.reader import Reader
from tiphys_apiserver.endpoints.update import OBJECT_SUBRESOURCES
from tiphys_apiserver.registry.strategy import NewObjects
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.rest.decode import decode_object, read_delete_options, ready_to_parse
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.long_list import LongList
from tiphys_apiserver.rest.negotiate import Format, Media, body_media, choose_format
from tiphys_apiserver.rest.read_options import list_query, read_patch
from tiphys_apiserver.rest.render import Renderer, compressed, message_answer
from tiphys_apiserver.rest.subresources import Subresources
from tiphys_apiserver.rest.watch_stream import WatchResponse
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.list_query import WatchQuery

# A watch without timeoutSeconds ends after 30 to 60 minutes, spread so that not all come back at once.
# Source: kube-apiserver --min-request-timeout.
MIN_WATCH_S = 1800.0
# Kinds whose delete answers with the object. Source: registry/core/pod/storage, ReturnDeletedObject.
_RETURNS_DELETED = frozenset(
    {
        "pods",
        "namespaces",
        "persistentvolumeclaims",
        "persistentvolumes",
        "resourcequotas",
        "podtemplates",
        "replicationcontrollers",
        "services",
        "serviceaccounts",
    }
)

Handler = Callable[[Exchange, Call, Served], Awaitable[Any]]
# Asks another server for what is not served here; None where none serves it either.
Elsewhere = Callable[[Exchange, Call], Awaitable[Any]]


class Resources:
    """Serves every resource by HTTP. `rng` answers numbers from 0 to 1."""

    def __init__(
        self,
        hall: Hall,
        renderer: Renderer,
        subresources: Subresources,
        rng: Callable[[], float],
        *,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._hall = hall
        self._renderer = renderer
        self._subresources = subresources
        self._rng = rng
        self._watches: set[WatchResponse] = set()
        self._verbs: Mapping[str, Handler] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    async def serve(self, exchange: Exchange, call: Call) -> Any:
        """The answer to an authorized request. Raises APIError."""
        info = call.info
        reader = self._hall.readers.get((info.api_group, info.api_version, info.resource))
        if reader is not None and not info.subresource:
            return await self._read_only(exchange, call, reader)
        if self._subresources.answers(call):
            return await self._subresources.answer(exchange, call)
        try:
            served = self._hall.served(call)
        except NotFound:
            found = await self._elsewhere(exchange, call) if self._elsewhere is not None else None
            if found is None:
                raise
            return found
        if info.subresource:
            if info.subresource not in served.info.subresources:
                raise NotFound.of_path()
            if info.verb not in served.info.subresources[info.subresource].verbs:
                raise refuse_verb(call)
            if info.subresource not in OBJECT_SUBRESOURCES:
                return await self._subresources.serve(exchange, call, served)
        elif info.verb not in served.info.verbs:
            raise refuse_verb(call)
        handler = self._verbs.get(info.verb)
        if handler is None:
            raise refuse_verb(call)
        return await handler(exchange, call, served)

    async def _read_only(self, exchange: Exchange, call: Call, reader: Reader) -> Any:
        if call.info.api_group and self._elsewhere is not None:
            # Who has put another server in this one's place means it.
            found = await self._elsewhere(exchange, call)
            if found is not None:
                return found
        if reader.info.deprecation:
            call.warn(reader.info.deprecation)
        media_format = _format(exchange)
        include = exchange.query.get("includeObject", "")
        if call.info.verb == "get":
            return self._renderer.object(reader.info, await reader.get(call), media_format, include)
        if call.info.verb == "list":
            answer = self._renderer.messages(reader.info, await reader.list(call), media_format, include)
            return await compressed(answer, exchange.headers.get("Accept-Encoding", ""))
        raise refuse_verb(call)

    async def _get(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        media_format = _format(exchange, served)
        cached = await getting.get(served, call, exchange.query.get("resourceVersion", ""))
        return self._renderer.cached(served, cached, media_format, exchange.query.get("includeObject", ""))

    async def _list(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        media_format = _format(exchange, served)
        page = await listing.list_objects(served, call, list_query(exchange))
        answer = self._renderer.list(served, page, media_format, exchange.query.get("includeObject", ""))
        if isinstance(answer, LongList):
            answer.hold(call.seat)
            call.seat = None
        return await compressed(answer, exchange.headers.get("Accept-Encoding", ""))

    async def _watch(self, exchange: Exchange, call: Call, served: Served) -> WatchResponse:
        media_format = _format(exchange, served)
        maker = self._renderer.frame_maker(served, media_format, exchange.query.get("includeObject", ""))
        query = WatchQuery(
            resource_version=exchange.query.get("resourceVersion", ""),
            resource_version_match=exchange.query.get("resourceVersionMatch", ""),
            allow_bookmarks=exchange.flag("allowWatchBookmarks"),
            send_initial_events=exchange.flag("sendInitialEvents") if "sendInitialEvents" in exchange.query else None,
        )
        timeout_s = float(exchange.number("timeoutSeconds") or 0) or MIN_WATCH_S * (1 + self._rng())
        response = WatchResponse(exchange, media_format.media, maker, headers=call.flow_headers)
        self._watches.add(response)
        try:
            if served.remote is not None:
                await watching.watch_converted(
                    served, call, query, response, serve=lambda watch: response.serve(watch, timeout_s)
                )
            else:
                await response.serve(await watching.watch(served, call, query, response), timeout_s)
        finally:
            self._watches.discard(response)
        return response

    def end_watches(self) -> None:
        """End every watch in good order: clients come back to another server, or to this one restarted."""
        for response in list(self._watches):
            response.end()

    async def _create(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        media_format = _format(exchange, served)
        known = served.store.strategy.known_specs if served.info is served.store.resource else None
        obj = await self._read(exchange, call, served, known)
        stored = await creating.create(self._hall, served, call, obj)
        return self._answer(exchange, served, stored, media_format, code=201)

    async def _update(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        media_format = _format(exchange, served)
        obj = await self._read(exchange, call, served)
        stored, is_new = await updating.update(self._hall, served, call, obj)
        return self._answer(exchange, served, stored, media_format, code=201 if is_new else 200)

    async def _patch(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        media_format = _format(exchange, served)
        patch = await read_patch(exchange, call)
        stored, is_new = await patching.patch(self._hall, served, call, patch)
        return self._answer(exchange, served, stored, media_format, code=201 if is_new else 200)

    async def _delete(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        media_format = _format(exchange, served)
        options = await read_delete_options(exchange, call)
        deleted = await deleting.delete(self._hall, served, call, options)
        info, obj = call.info, deleted.object
        if not deleted.gone or info.resource in _RETURNS_DELETED:
            return self._answer(exchange, served, obj, media_format)
        status = meta_pb2.Status(status="Success", code=200)
        status.metadata.SetInParent()
        status.details.name = obj.metadata.name
        status.details.group = info.api_group
        status.details.kind = info.resource
        status.details.uid = obj.metadata.uid
        plain = Format(media_format.media)
        return message_answer(status, "v1", "Status", plain)

    async def _delete_collection(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        media_format = _format(exchange, served)
        options = await read_delete_options(exchange, call)
        gone = await deleting.delete_collection(self._hall, served, call, list_query(exchange), options=options)
        return self._renderer.messages(served.info, gone, Format(media_format.media))

    async def _read(self, exchange: Exchange, call: Call, served: Served, known: NewObjects | None = None) -> Any:
        media = body_media(exchange.headers.get("Content-Type", ""))
        info = served.info
        if media is Media.PROTOBUF and info.is_custom:
            raise UnsupportedMediaType.of((Media.JSON.value, Media.YAML.value))
        body, media = await ready_to_parse(await exchange.body(), media)
        return decode_object(info.message, body, media, call, api_version=info.api_version, kind=info.kind, known=known)

    def _answer(self, exchange: Exchange, served: Served, obj: Any, media_format: Format, *, code: int = 200) -> Answer:
        include = exchange.query.get("includeObject", "")
        return self._renderer.written(served, obj, media_format, include, code=code)


def _format(exchange: Exchange, served: Served | None = None) -> Format:
    protobuf = served is None or not served.info.is_custom
    return choose_format(exchange.headers.get("Accept", ""), protobuf=protobuf)
