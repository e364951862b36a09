"""The link of the chain that notes requests: between authentication and all that may refuse them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.audit.bodies import Sent
from tiphys_apiserver.audit.events import Draft, cut_user_agent, micro_time, reference_of, uri_of, user_fields
from tiphys_apiserver.audit.policy import Level, Policy, Stage, Verdict
from tiphys_apiserver.audit.trail import Trail
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.registry.store import Deleted
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.cacher import CachedList
from tiphys_apiserver.storage.objects import CachedObject
from tiphys_component.clock import Clock

R = TypeVar("R")

_NOBODY = UserInfo("")
# A client that has gone before it was answered, as proxies write it.
_CLIENT_GONE = 499


@dataclass(frozen=True, slots=True)
class Origin:
    """How a request came in."""

    uri: str
    user_agent: str
    addresses: tuple[str, ...]
    audit_id: str = ""


def origin_of(call: Call) -> Origin:
    """What the door knows of the request: an exchange over HTTP, a context over gRPC."""
    door: Any = call.door
    if isinstance(door, Exchange):
        headers = door.headers
        uri = f"{door.raw_path}?{door.raw_query}" if door.raw_query else door.raw_path
        forwarded = [part.strip() for part in headers.get("X-Forwarded-For", "").split(",") if part.strip()]
        addresses = tuple(dict.fromkeys([*forwarded, call.credentials.client_address]))
        agent = cut_user_agent(headers.get("User-Agent", ""))
        return Origin(uri, agent, addresses, headers.get("Audit-Id", "")[:64])
    agent = ""
    if door is not None:
        agent = next((str(value) for name, value in door.invocation_metadata() or () if name == "user-agent"), "")
    return Origin(uri_of(call.info), cut_user_agent(agent), (_host(call.credentials.client_address),))


def _host(peer: str) -> str:
    """The address in gRPC's form ipv4:198.51.100.7:4711 or ipv6:[2001:db8::7]:4711."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return rest.rpartition(":")[0].removeprefix("[").removesuffix("]").replace("%5B", "").replace("%5D", "")


class Record:
    """The events of one request. Each stage is written once at most."""

    def __init__(self, auditor: Auditor, call: Call, verdict: Verdict, user: UserInfo) -> None:
        self._auditor = auditor
        # None once the last event is written: call and record would keep each other, and the bodies, alive.
        self._call: Any = call
        self._verdict = verdict
        self._user = user
        origin = origin_of(call)
        self.audit_id = origin.audit_id or auditor.new_uid()
        self._annotations: dict[str, str] = {}
        self._has_started = False
        self._fields: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": verdict.level.text,
            "auditID": self.audit_id,
            "requestURI": origin.uri,
            "verb": call.info.verb,
            "user": user_fields(user),
            "sourceIPs": list(origin.addresses),
            "userAgent": origin.user_agent,
            "requestReceivedTimestamp": micro_time(auditor.clock.now()),
        }
        if call.info.is_resource_request:
            self._fields["objectRef"] = reference_of(call.info)

    def annotate(self, key: str, value: str) -> None:
        """Say something of the request in its later events."""
        self._annotations[key] = value

    def received(self) -> None:
        """The request is here and authenticated."""
        self._add(Stage.REQUEST_RECEIVED, self._fields)

    def started(self) -> None:
        """The head of a lasting answer is written."""
        if not self._has_started:
            self._has_started = True
            self._add(Stage.RESPONSE_STARTED, self._told(200))

    def refused(self, error: APIError) -> None:
        """The caller did not prove who it is; as in Kubernetes this is told by one event that the answer starts."""
        self._add(Stage.RESPONSE_STARTED, self._told(error.code, error))

    def failed(self, error: APIError) -> None:
        """The request was refused."""
        self._finish(Stage.RESPONSE_COMPLETE, self._told(error.code, error), self._request(), error)

    def panicked(self, error: Exception) -> None:
        """The server failed at it."""
        fields = self._told(500)
        fields["responseStatus"] |= {
            "status": "Failure",
            "reason": "InternalError",
            "message": f"the server failed: {type(error).__name__}",
        }
        self._finish(Stage.PANIC, fields, self._request())

    def abandoned(self) -> None:
        """The client has gone."""
        self._finish(Stage.RESPONSE_COMPLETE, self._told(200 if self._has_started else _CLIENT_GONE), self._request())

    def answered(self, result: Any) -> None:
        """The endpoint has answered; what streams on after that is complete when ended() is called."""
        if self._call.streams:
            self.started()
            return
        code = result.status if hasattr(result, "status") and isinstance(result.status, int) else self._usual_code()
        wants_body = self._verdict.level is Level.REQUEST_RESPONSE
        response = _response(result) if wants_body else None
        self._finish(Stage.RESPONSE_COMPLETE, self._told(code), self._request(), response)

    def ended(self) -> None:
        """A stream that went on after the endpoint has ended."""
        self._finish(Stage.RESPONSE_COMPLETE, self._told(200))

    def _usual_code(self) -> int:
        return 201 if self._call.info.verb == "create" else 200

    def _request(self) -> Any:
        """What was sent; at Metadata only where it is needed for the name of what is created."""
        call = self._call
        if self._verdict.level < Level.REQUEST and (call.info.name or call.info.verb != "create"):
            return None
        if call.sent is not None:
            return call.sent
        if isinstance(call.door, Exchange) and call.door.sent:
            return Sent(call.door.headers.get("Content-Type", ""), call.door.sent)
        return None

    def _told(self, code: int, error: APIError | None = None) -> dict[str, Any]:
        status: dict[str, Any] = {"metadata": {}, "code": code}
        if error is not None:
            status |= {"status": "Failure", "message": error.message, "reason": error.reason}
        fields = {**self._fields, "responseStatus": status}
        if self._call.user is not self._user and self._call.impersonation is not None:
            fields["impersonatedUser"] = user_fields(self._call.user)
        if self._annotations:
            fields["annotations"] = dict(self._annotations)
        return fields

    def _add(self, stage: Stage, fields: dict[str, Any], request: Any = None, response: Any = None) -> None:
        verdict = self._verdict
        if stage in verdict.omit_stages:
            return
        at = self._auditor.clock.now()
        managed = verdict.omit_managed_fields
        self._auditor.add(Draft(fields, verdict.level, stage, at, managed, request, response))

    def _finish(self, stage: Stage, fields: dict[str, Any], request: Any = None, response: Any = None) -> None:
        self._add(stage, fields, request, response)
        self._call = None


def _response(result: Any) -> Any:
    """The body of an answer in a form that the log's thread reads; None for streams."""
    if isinstance(result, Answer):
        body = result.body
        data = body if isinstance(body, bytes) else b"".join(body)
        is_plain = not any(name.lower() == "content-encoding" for name, _ in result.headers)
        return Sent(result.content_type, data) if is_plain else None
    if isinstance(result, Deleted):
        return result.object
    if isinstance(result, CachedList):
        return list(result.items)
    if isinstance(result, tuple):
        return result[0]
    return result if isinstance(result, (Message, CachedObject, list)) else None


class Auditor:
    """Notes requests as the policy says."""

    def __init__(self, policy: Policy, trails: Sequence[Trail], clock: Clock, new_uid: Callable[[], str]) -> None:
        self._policy = policy
        self.trails = trails
        self.clock = clock
        self.new_uid = new_uid

    async def run(self, call: Call, endpoint: Callable[[], Awaitable[R]]) -> R:
        """What endpoint answers, noted. call.user is who was authenticated."""
        verdict = self._policy.judge(call.user, call.info)
        if verdict.level is Level.NONE:
            return await endpoint()
        for trail in self.trails:
            await trail.wait_room()
        record = call.record = Record(self, call, verdict, call.user)
        record.received()
        if isinstance(call.door, Exchange):
            call.door.started = record.started
        try:
            result = await endpoint()
        except APIError as err:
            record.failed(err)
            raise
        except (asyncio.CancelledError, ConnectionResetError):
            record.abandoned()
            raise
        except Exception as err:
            record.panicked(err)
            raise
        finally:
            if isinstance(call.door, Exchange):
                call.door.started = None
        record.answered(result)
        return result

    def add(self, draft: Draft) -> None:
        """Give an event to every trail."""
        for trail in self.trails:
            trail.add(draft)

    def refuse(self, call: Call, error: APIError) -> None:
        """Note a request whose caller was not authenticated."""
        verdict = self._policy.judge(_NOBODY, call.info)
        if verdict.level is not Level.NONE:
            record = call.record = Record(self, call, verdict, _NOBODY)
            record.refused(error)
