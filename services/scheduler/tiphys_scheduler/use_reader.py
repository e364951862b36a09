"""Reads from metrics.k8s.io what nodes and pods use, for MeasuredUse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.quantity import QuantityError
from tiphys_client.rest import PathReader
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_scheduler.plugins.measured_use import Measure, MeasuredUseArgs, is_on_spare_room
from tiphys_scheduler.pod_info import CPU, MEMORY, PodInfo, amount

_log = get_logger("scheduler.use")
_PATH: Final = "/apis/metrics.k8s.io/v1beta1"


@dataclass(frozen=True, slots=True)
class _Told:
    """A measure with the moment that it was taken at, seconds since the epoch."""

    at_s: float
    measure: Measure


class UseReader:
    """Asks every period; `told` hears what is known of each node, with too old measures left out."""

    def __init__(
        self,
        rest: PathReader,
        args: MeasuredUseArgs,
        clock: Clock,
        *,
        pods_on: Callable[[str], Iterable[PodInfo]],
        told: Callable[[Mapping[str, Measure]], None],
    ) -> None:
        self._rest, self._args, self._clock = rest, args, clock
        self._pods_on, self._tell = pods_on, told
        self._known: dict[str, _Told] = {}

    async def run(self) -> None:
        """Reads until cancelled."""
        while True:
            await self.read()
            await self._clock.sleep(self._args.period_s)

    async def read(self) -> None:
        """Reads once. What can't be had now is as it was told last, until that is too old."""
        try:
            nodes = (await self._rest.get(f"{_PATH}/nodes"))["items"]
            pods = (await self._rest.get(f"{_PATH}/pods"))["items"]
            self._known = {**self._known, **_measures(nodes, pods, self._pods_on)}
        except (APIError, KeyError, TypeError, ValueError, QuantityError) as err:
            _log.warning("use of nodes not read", err=str(err))
        oldest_s = self._clock.now().timestamp() - self._args.oldest_s
        self._known = {name: told for name, told in self._known.items() if told.at_s >= oldest_s}
        self._tell({name: told.measure for name, told in self._known.items()})


def _measures(
    nodes: Sequence[Any], pods: Sequence[Any], pods_on: Callable[[str], Iterable[PodInfo]]
) -> dict[str, _Told]:
    """By node, what pods use there that do not live on spare room. Raises for what can't be read."""
    use = {f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": _sum(pod["containers"]) for pod in pods}
    found: dict[str, _Told] = {}
    for node in nodes:
        name = node["metadata"]["name"]
        used, requested = _usage(node), (0, 0)
        for pod in pods_on(name):
            own = use.get(pod.key)
            if own is None:
                continue
            if is_on_spare_room(pod):
                used = _less(used, own)
            else:
                requests = dict(pod.needs.requests)
                requested = _more(requested, (requests.get(CPU, 0), requests.get(MEMORY, 0)))
        at = datetime.fromisoformat(node["timestamp"].replace("Z", "+00:00"))
        found[name] = _Told(at.timestamp(), Measure(used, requested))
    return found


def _usage(item: Any) -> tuple[int, int]:
    return amount(CPU, item["usage"]["cpu"]), amount(MEMORY, item["usage"]["memory"])


def _sum(containers: Iterable[Any]) -> tuple[int, int]:
    total = (0, 0)
    for container in containers:
        total = _more(total, _usage(container))
    return total


def _more(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _less(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0] - other[0], 0), max(one[1] - other[1], 0)
