"""The chain: what every request passes before its endpoint, in this order and only here.

    count > authenticate > audit > impersonate > flow control > authorize > endpoint (admission, registry)

Both doors run it. An error of any link is an APIError; the door writes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from tiphys_apimachinery.errors import APIError, ServiceUnavailable, StatusDetails, TooManyRequests, Unauthorized
from tiphys_apiserver.authentication.interface import Authenticator
from tiphys_apiserver.authorization.forbidden import forbidden
from tiphys_apiserver.authorization.impersonation import impersonate
from tiphys_apiserver.authorization.interface import Authorizer
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.flow_control.interface import FlowControl
from tiphys_apiserver.server.request_metrics import RequestMetrics
from tiphys_component.clock import Clock, SystemClock

R = TypeVar("R")

RETRY_AFTER_S = 1
# Asked by load balancers and probes that have no credentials.
# Source: kube-apiserver --authorization-always-allow-paths.
ALWAYS_ALLOWED = frozenset({"/healthz", "/livez", "/readyz"})


class Auditing(Protocol):
    """Notes requests that were authenticated, and those that were not."""

    async def run(self, call: Call, endpoint: Callable[[], Awaitable[R]]) -> R:
        """The endpoint's answer, noted."""
        ...

    def refuse(self, call: Call, error: APIError) -> None:
        """Note a request whose caller did not prove who it is."""
        ...


class Chain:
    """Lets requests through to their endpoints, or refuses them. auditor is None where nothing is noted."""

    def __init__(
        self,
        authenticator: Authenticator,
        authorizer: Authorizer,
        flow: FlowControl,
        *,
        auditor: Auditing | None = None,
        metrics: RequestMetrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._auditor = auditor
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._flow = flow
        self._stopping = False
        self.leaving = False

    def leave(self) -> None:
        """From now on a connection ends with its next answer, so that the client's next request goes elsewhere."""
        self.leaving = True

    def stop(self) -> None:
        """Refuse what comes from now on; what is inside goes on."""
        self._stopping = True

    async def run(self, call: Call, endpoint: Callable[[], Awaitable[R]]) -> R:
        """The endpoint's answer. Raises Unauthorized, Forbidden, TooManyRequests, and what the endpoint raises."""
        metrics = self._metrics
        if metrics is None:
            return await self._pass(call, endpoint)
        metrics.entered(call)
        try:
            if call.is_counted:
                return await self._pass(call, endpoint)
            return await self._count(metrics, call, endpoint)
        finally:
            metrics.left(call)

    async def _count(self, metrics: RequestMetrics, call: Call, endpoint: Callable[[], Awaitable[R]]) -> R:
        """Count a request whose door does not."""
        began = self._clock.monotonic()
        code = 201 if call.info.verb == "create" else 200
        try:
            return await self._pass(call, endpoint)
        except APIError as err:
            code = err.code
            raise
        except Exception:
            code = 500
            raise
        finally:
            metrics.observe(call, code, self._clock.monotonic() - began)

    @contextmanager
    def streaming(self, call: Call) -> Iterator[None]:
        """Count an answer that goes on after run has returned."""
        if self._metrics is None:
            yield
            return
        self._metrics.entered(call)
        try:
            yield
        finally:
            self._metrics.left(call)

    async def _pass(self, call: Call, endpoint: Callable[[], Awaitable[R]]) -> R:
        if self._stopping and call.info.is_resource_request:
            if self._metrics is not None:
                self._metrics.terminated(call, ServiceUnavailable.code)
            # With a time, as clients that are given one try again by themselves.
            details = StatusDetails(retry_after_s=RETRY_AFTER_S)
            raise ServiceUnavailable("the server is shutting down", details=details)
        await self._authenticate(call)
        if self._auditor is not None:
            return await self._auditor.run(call, lambda: self._enter(call, endpoint))
        return await self._enter(call, endpoint)

    async def _enter(self, call: Call, endpoint: Callable[[], Awaitable[R]]) -> R:
        if call.impersonation is not None:
            call.user = await impersonate(self._authorizer, call.user, call.impersonation)
        try:
            await self._flow.enter(call)
        except TooManyRequests as err:
            if self._metrics is not None:
                self._metrics.terminated(call, err.code)
            raise
        try:
            await self._authorize(call)
            return await endpoint()
        finally:
            call.free_seat()

    async def _authenticate(self, call: Call) -> None:
        try:
            user = await self._authenticator.authenticate(call.credentials)
        except Unauthorized as err:
            # Why a credential is bad is nobody's business but TokenReview's.
            raise self._refusal(call) from err
        if user is None:
            raise self._refusal(call)
        call.user = user

    def _refusal(self, call: Call) -> Unauthorized:
        error = Unauthorized.of()
        if self._auditor is not None:
            self._auditor.refuse(call, error)
        return error

    async def _authorize(self, call: Call) -> None:
        if not call.info.is_resource_request and _is_always_allowed(call.info.path):
            return
        attributes = call.attributes()
        decision = await self._authorizer.authorize(attributes)
        if call.record is not None:
            call.record.annotate("authorization.k8s.io/decision", "allow" if decision.allowed else "forbid")
            call.record.annotate("authorization.k8s.io/reason", decision.reason)
        if not decision.allowed:
            raise forbidden(attributes, decision.reason)


def _is_always_allowed(path: str) -> bool:
    return path in ALWAYS_ALLOWED or path.startswith(("/livez/", "/readyz/", "/healthz/"))
