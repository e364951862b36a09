"""Says on each APIService whether the server behind it answers, and keeps what that says it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from tiphys.api.apiregistration.v1.apiregistration_pb2 import APIService
from tiphys_apimachinery.errors import APIError, NotFound, ServiceUnavailable
from tiphys_apiserver.admission.webhooks.caller import CallFailed, Resolve
from tiphys_apiserver.aggregation.client import RemoteClient
from tiphys_apiserver.aggregation.documents import JSON
from tiphys_apiserver.aggregation.remotes import AVAILABLE, Remote, RemoteTable
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.storage.cacher import Cacher
from tiphys_apiserver.storage.selection import Selection
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry

_log = get_logger(__name__)

# Between two looks at servers that nothing was heard of.
_CHECK_S = 10.0
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The Available condition: the reason is one word, the message is for people."""

    is_available: bool
    reason: str
    message: str


_PASSED = Verdict(True, "Passed", "all checks passed")


class Availability:
    """Looks at every remote when an APIService changes and every 10 seconds; costs nothing while there is none."""

    def __init__(
        self,
        objects: ObjectAccess,
        remotes: RemoteTable,
        client: RemoteClient,
        *,
        resolve: Resolve,
        clock: Clock,
        metrics: Registry,
    ) -> None:
        self._objects = objects
        self._remotes = remotes
        self._client = client
        self._resolve = resolve
        self._clock = clock
        self._failures = metrics.counter(
            "aggregator_unavailable_apiservice_total", "Times that an APIService went out of reach.", ("name", "reason")
        )
        # Those out of reach now, of all that are counted.
        self._known: dict[str, bool] = {}
        # Not the registry's own gauge: beside a counter of the same name prometheus_client takes it for a double.
        metrics.collector(self._collect)
        self._changed = asyncio.Event()
        self._timed = False
        # What each remote says it serves; absent where it does not answer.
        self.lists: dict[tuple[str, str], list[JSON]] = {}

    async def run(self, cacher: Cacher) -> None:
        """Look until cancelled. cacher is that of APIServices."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(cacher), name="changes of APIServices")
            tasks.create_task(self._check_when_changed(), name="checks of APIServices")

    async def _watch(self, cacher: Cacher) -> None:
        while True:
            try:
                with await cacher.stream(Selection("")) as events:
                    async for _batch in events:
                        self._changed.set()
            except APIError as err:
                _log.debug("watch of APIServices ended", err=str(err))
            await self._clock.sleep(_RETRY_S)

    async def _check_when_changed(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            remotes = await self._remotes.current()
            self._count_known({service.metadata.name for service in await self._objects.list(APIService)})
            async with asyncio.TaskGroup() as tasks:
                for remote in remotes.values():
                    tasks.create_task(self._check(remote), name=f"check of {remote.name}")
            for place in self.lists.keys() - remotes.keys():
                del self.lists[place]
            if remotes and not self._timed:
                self._timed = True
                self._clock.call_later(_CHECK_S, self._look_again)

    def _look_again(self) -> None:
        self._timed = False
        self._changed.set()

    async def _check(self, remote: Remote) -> None:
        verdict = await self._judge(remote)
        self._count(remote.name, verdict)
        try:
            await self._objects.modify(
                APIService,
                remote.name,
                "",
                lambda stored: set_available(stored, verdict, self._clock),
                subresource="status",
            )
        except NotFound:
            return
        except APIError as err:
            _log.warning("condition of an APIService not written", api_service=remote.name, err=str(err))

    def _count(self, name: str, verdict: Verdict) -> None:
        is_away = not verdict.is_available
        if is_away and not self._known.get(name):
            self._failures.labels(name, verdict.reason).inc()
        self._known[name] = is_away

    def _count_known(self, names: set[str]) -> None:
        """Those that this server answers itself are there; what is gone is not told of any more."""
        for name in names - self._known.keys():
            self._known[name] = False
        for name in self._known.keys() - names:
            del self._known[name]

    def _collect(self) -> Iterator[Metric]:
        if self._known:
            told = "Whether an APIService is out of reach."
            family = GaugeMetricFamily("aggregator_unavailable_apiservice", told, labels=["name"])
            for name, is_away in self._known.items():
                family.add_metric([name], float(is_away))
            yield family

    async def _judge(self, remote: Remote) -> Verdict:
        place = (remote.group, remote.version)
        try:
            await self._resolve(remote.service, remote.port)
        except CallFailed as err:
            self.lists.pop(place, None)
            namespace, name = remote.service
            reason = "ServiceNotFound" if "not found" in str(err) else "ServicePortError"
            return Verdict(False, reason, f'service/{name} in "{namespace}" can\'t be used: {err}')
        try:
            document = await self._client.read(remote, remote.path)
            if not 200 <= document.status < 300:
                raise ServiceUnavailable(f"bad status from {remote.path}: {document.status}")
            self.lists[place] = _resource_list(document.body)
        except (APIError, ValueError) as err:
            self.lists.pop(place, None)
            return Verdict(False, "FailedDiscoveryCheck", f"failing or missing response: {err}")
        return _PASSED


def _resource_list(body: bytes) -> list[JSON]:
    document = orjson.loads(body)
    if not isinstance(document, dict) or not isinstance(document.get("resources", []), list):
        raise ValueError("the answer is no APIResourceList")
    return [entry for entry in document.get("resources", []) if isinstance(entry, dict)]


def set_available(api_service: Any, verdict: Verdict, clock: Clock) -> None:
    """Write the condition; its time changes with its status only."""
    status = "True" if verdict.is_available else "False"
    condition = next((one for one in api_service.status.conditions if one.type == AVAILABLE), None)
    if condition is None:
        condition = api_service.status.conditions.add(type=AVAILABLE)
    if condition.status != status:
        condition.status = status
        condition.lastTransitionTime.seconds = int(clock.now().timestamp())
    condition.reason, condition.message = verdict.reason, verdict.message
