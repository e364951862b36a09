"""HTTP extenders: services outside that filter and rank nodes, or bind pods, over JSON.

Source of the messages: k8s.io/kube-scheduler extender/v1 (ExtenderArgs, ExtenderFilterResult, HostPriorityList,
ExtenderBindingArgs). Members of answers are read whatever their case, as Go does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_component.log import get_logger
from tiphys_scheduler.configuration.model import ExtenderConfig
from tiphys_scheduler.framework.interface import MAX_SCORE, Event
from tiphys_scheduler.plugins.default_preemption import Victims
from tiphys_scheduler.pod_info import PodInfo

_log = get_logger("scheduler.extender")
# Extenders rank from 0 to this.
_MOST_RANK = 10


class ExtenderError(Exception):
    """An extender that may not be ignored gave no answer."""


@dataclass(frozen=True, slots=True)
class Nominees:
    """Nodes that would take a pod, their scores, and where to get the objects."""

    names: Sequence[str]
    scores: Sequence[int]
    node_of: Callable[[str], Node | None]


class Extender:
    """One extender; also the Bind plugin of its pods where it binds them itself."""

    # What may change its mind is unknown.
    events = frozenset(Event)

    def __init__(self, config: ExtenderConfig) -> None:
        self._config = config
        self.name = config.url
        self.weight = config.weight
        self.binds = bool(config.bind_verb)
        self.preempts = bool(config.preempt_verb)
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_ignorable(self) -> bool:
        """Whether pods are placed without it while it is away."""
        return self._config.is_ignorable

    @property
    def left_to_it(self) -> list[str]:
        """Resources that the scheduler itself does not count."""
        return [name for name, is_ignored in self._config.managed.items() if is_ignored]

    def is_interested(self, pod: PodInfo) -> bool:
        """Whether a pod is its business: all are, or those that request what it manages."""
        return not self._config.managed or any(name in self._config.managed for name, _ in pod.needs.requests)

    async def filter(self, pod: Pod, nominees: Nominees) -> tuple[list[str], dict[str, str]]:
        """The nodes that it leaves, and why it refused the others. Raises ExtenderError."""
        if not self._config.filter_verb:
            return list(nominees.names), {}
        answer = _lower(await self._post(self._config.filter_verb, self._args(pod, nominees)))
        if answer.get("error"):
            raise ExtenderError(str(answer["error"]))
        names = answer.get("nodenames")
        if names is None:
            items = _lower(answer.get("nodes") or {}).get("items") or []
            names = [item["metadata"]["name"] for item in items]
        failed = {**(answer.get("failednodes") or {}), **(answer.get("failedandunresolvablenodes") or {})}
        known = set(nominees.names)
        return [name for name in names if name in known], {str(name): str(why) for name, why in failed.items()}

    async def prioritize(self, pod: Pod, nominees: Nominees) -> dict[str, int]:
        """What it adds to the scores. Raises ExtenderError."""
        if not self._config.prioritize_verb:
            return {}
        answer = await self._post(self._config.prioritize_verb, self._args(pod, nominees))
        ranks = [_lower(item) for item in answer or []]
        return {str(r["host"]): int(r["score"]) * self.weight * (MAX_SCORE // _MOST_RANK) for r in ranks}

    async def preempt(
        self, pod: Pod, offers: Mapping[str, Victims], pod_of: Callable[[str], Pod | None]
    ) -> dict[str, Victims]:
        """What it leaves of nodes and their victims. Raises ExtenderError."""
        whole, meta = {}, {}
        for node, victims in offers.items():
            if self._config.node_cache_capable:
                named = [{"UID": victim.uid} for victim in victims.pods]
                meta[node] = {"Pods": named, "NumPDBViolations": victims.violations}
            else:
                messages = [
                    message for message in (pod_of(victim.key) for victim in victims.pods) if message is not None
                ]
                whole[node] = {"Pods": [to_json(m) for m in messages], "NumPDBViolations": victims.violations}
        args = {"Pod": to_json(pod), "NodeNameToVictims": whole or None, "NodeNameToMetaVictims": meta or None}
        answer = _lower(await self._post(self._config.preempt_verb, args)).get("nodenametometavictims") or {}
        left: dict[str, Victims] = {}
        for node, value in answer.items():
            if node not in offers:
                continue
            named_uids = {_lower(item).get("uid") for item in _lower(value).get("pods") or []}
            going = tuple(victim for victim in offers[node].pods if victim.uid in named_uids)
            if going:
                left[node] = Victims(going, int(_lower(value).get("numpdbviolations") or 0))
        return left

    def is_mine(self, pod: PodInfo) -> bool:
        """Pods that it binds."""
        return self.binds and self.is_interested(pod)

    async def bind(self, pod: PodInfo, node: str) -> str:
        """Has it bind a pod."""
        args = {"PodName": pod.name, "PodNamespace": pod.namespace, "PodUID": pod.uid, "Node": node}
        try:
            return str(_lower(await self._post(self._config.bind_verb, args)).get("error") or "")
        except ExtenderError as err:
            return str(err)

    async def close(self) -> None:
        """Closes its connections."""
        if self._session is not None:
            await self._session.close()

    def _args(self, pod: Pod, nominees: Nominees) -> dict[str, Any]:
        args: dict[str, Any] = {"Pod": to_json(pod), "Nodes": None, "NodeNames": None}
        if self._config.node_cache_capable:
            args["NodeNames"] = list(nominees.names)
        else:
            nodes = [node for node in map(nominees.node_of, nominees.names) if node is not None]
            args["Nodes"] = {"items": [to_json(node) for node in nodes]}
        return args

    async def _post(self, verb: str, body: object) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._config.timeout_s))
        url = f"{self._config.url}/{verb}"
        try:
            async with self._session.post(url, json=body) as reply:
                if reply.status != 200:
                    raise ExtenderError(f"extender {url}: status {reply.status}")
                return await reply.json(content_type=None)
        except (TimeoutError, aiohttp.ClientError, ValueError) as err:
            raise ExtenderError(f"extender {url}: {err or type(err).__name__}") from err


async def ask(extenders: Sequence[Extender], pod: PodInfo, message: Pod, nominees: Nominees) -> str | Mapping[str, int]:
    """The node that is best with what extenders say; or, where they leave none, their reasons with counts.

    Raises ExtenderError where one that may not be ignored gives no answer.
    """
    reasons: dict[str, int] = {}
    totals = dict(zip(nominees.names, nominees.scores, strict=True))
    interested = [item for item in extenders if item.is_interested(pod)]
    for extender in interested:
        try:
            left, failed = await extender.filter(message, Nominees(list(totals), [], nominees.node_of))
        except ExtenderError as err:
            if not extender.is_ignorable:
                raise
            _log.warning("extender left out", pod=pod.key, extender=extender.name, err=str(err))
            continue
        for name in totals.keys() - set(left):
            why = failed.get(name, "FailedExtender")
            reasons[why] = reasons.get(why, 0) + 1
        totals = {name: totals[name] for name in left}
        if not totals:
            return reasons
    for extender in interested:
        try:
            added = await extender.prioritize(message, Nominees(list(totals), [], nominees.node_of))
        except ExtenderError as err:
            # As upstream: a ranking that fails is left out.
            _log.warning("extender's ranking left out", pod=pod.key, extender=extender.name, err=str(err))
            continue
        for name, value in added.items():
            if name in totals:
                totals[name] += value
    return max(totals, key=lambda name: totals[name])


def _lower(value: Any) -> dict[str, Any]:
    return {str(name).lower(): member for name, member in value.items()} if isinstance(value, Mapping) else {}
