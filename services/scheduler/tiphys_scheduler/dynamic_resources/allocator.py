"""Which devices claims get on one node: an exact search, claims, requests, choices and devices each in their order.

It finds a solution where there is one, and the first in that order. A request's devices are tried as combinations, not
permutations, and a request is given up as soon as fewer devices are left than it needs; beyond MOST_STEPS it ends
without an answer rather than hold up the scheduler. Pure: same claims, pools and facts, same answer.
Source of the rules: kubernetes KEP-4381 (structured parameters) and KEP-4816 (prioritized list).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.quantity import Quantity
from tiphys_apimachinery.resource_claims import MOST_DEVICES, is_covered, qualified
from tiphys_scheduler.dynamic_resources.model import (
    Choice,
    CounterKey,
    Device,
    DeviceId,
    Given,
    Pool,
    PoolId,
    Wish,
    is_tolerated,
)
from tiphys_scheduler.dynamic_resources.selectors import is_met

MOST_STEPS: Final = 20_000
CANNOT_ALLOCATE: Final = "cannot allocate all claims"
Allocation = Mapping[str, tuple[Given, ...]]


class NotAllocated(Exception):
    """The claims can't be met on a node; the message says why, where there is more to say than that."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the search looks at beside the pools of the node.

    taken are the devices that others have; used what they take of the pools' counters; selectors_of gives the
    conditions of a class, None where there is no such class.
    """

    taken: Collection[DeviceId]
    selectors_of: Callable[[str], Sequence[str] | None]
    used: Mapping[tuple[PoolId, CounterKey], Quantity] = field(default_factory=dict)
    # What was found before of devices and conditions, for as long as slices and classes stay.
    known: dict[tuple[DeviceId, str], bool] = field(default_factory=dict)


def allocate(wishes: Sequence[Wish], pools: Sequence[Pool], facts: Facts) -> Allocation:
    """The devices of each claim, from pools whose devices can all be reached. Raises NotAllocated."""
    search = _Search(wishes, pools, facts)
    if not search.is_promising() or not search.solve(0):
        raise NotAllocated(CANNOT_ALLOCATE)
    return {wish.claim: tuple(search.given[wish.claim]) for wish in wishes}


def is_candidate(device: Device, choice: Choice, facts: Facts) -> bool:
    """Whether a device is what a choice asks for, whoever has it. Raises NotAllocated where a condition fails."""
    if device.has_conditions or not all(is_tolerated(taint, choice.tolerations) for taint in device.taints):
        return False
    for name, least in choice.capacity:
        amount = device.capacity.get(qualified(name, device.id.driver))
        if amount is None or amount < least:
            return False
    of_class = facts.selectors_of(choice.device_class)
    if of_class is None:
        return False
    return all(_meets(device, expression, choice, facts) for expression in (*of_class, *choice.selectors))


def _meets(device: Device, expression: str, choice: Choice, facts: Facts) -> bool:
    key = (device.id, expression)
    found = facts.known.get(key)
    if found is None:
        try:
            found = facts.known[key] = is_met(expression, device.variable)
        except CelError as err:
            where = "/".join(device.id)
            raise NotAllocated(f"request {choice.name}: device {where}: CEL runtime error: {err}") from err
    return found


class _Held:
    """The values of an attribute that the devices chosen so far have, for one constraint of a claim."""

    def __init__(self, requests: tuple[str, ...], attribute: str, *, is_distinct: bool) -> None:
        self._requests, self._attribute, self._is_distinct = requests, attribute, is_distinct
        self._values: list[Any] = []

    def covers(self, choice: Choice) -> bool:
        """Whether it is about the devices of a choice."""
        return is_covered(choice.name, self._requests)

    def add(self, device: Device) -> bool:
        """Takes a device in; False where the constraint would not hold."""
        value = device.attributes.get(qualified(self._attribute, device.id.driver))
        if value is None:
            return False
        # True equals 1 in Python, and is no number here.
        mark = (type(value), value)
        if self._values and (mark in self._values) is self._is_distinct:
            return False
        self._values.append(mark)
        return True

    def pop(self) -> None:
        """Leaves the last device out again."""
        self._values.pop()


class _Search:
    def __init__(self, wishes: Sequence[Wish], pools: Sequence[Pool], facts: Facts) -> None:
        self._facts = facts
        self._pools = pools
        self._slots = [(wish, choices) for wish in wishes for choices in wish.requests]
        self._constraints = {
            wish.claim: [_Held(c.requests, c.attribute, is_distinct=c.is_distinct) for c in wish.constraints]
            for wish in wishes
        }
        self.given: dict[str, list[Given]] = {wish.claim: [] for wish in wishes}
        self._used: set[DeviceId] = set()
        self._counters = {
            (pool.id, key): amount - facts.used.get((pool.id, key), Quantity.of(0))
            for pool in pools
            for key, amount in pool.counters.items()
        }
        self._candidates: dict[Choice, list[Device] | None] = {}
        self._steps = 0

    def is_promising(self) -> bool:
        """Whether each request could be met, were it alone: where one can't, no way of meeting the others helps."""
        return all(any(self._of_choice(choice) is not None for choice in choices) for _, choices in self._slots)

    def solve(self, slot: int) -> bool:
        """Meets the requests from this one on."""
        if slot == len(self._slots):
            return True
        _, choices = self._slots[slot]
        for choice in choices:
            candidates = self._of_choice(choice)
            if candidates is None:
                continue
            wanted = len(candidates) if choice.takes_all else choice.count
            if wanted and self._pick(slot, choice, candidates, (0, wanted)):
                return True
        return False

    def _pick(self, slot: int, choice: Choice, candidates: list[Device], place: tuple[int, int]) -> bool:
        """Takes the missing devices of a choice from a place on, then goes on with the next request."""
        start, missing = place
        if not missing:
            return self.solve(slot + 1)
        claim = self._slots[slot][0].claim
        if len(self.given[claim]) + missing > MOST_DEVICES:
            return False
        for index in range(start, len(candidates) - missing + 1):
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise NotAllocated("the search for devices was given up: too many ways to try")
            device = candidates[index]
            if not self._take(claim, choice, device):
                if choice.takes_all:
                    return False
                continue
            if self._pick(slot, choice, candidates, (index + 1, missing - 1)):
                return True
            self._give_back(claim, choice, device)
        return False

    def _take(self, claim: str, choice: Choice, device: Device) -> bool:
        if not choice.is_admin and device.id in self._used:
            return False
        added: list[_Held] = []
        for held in self._constraints[claim]:
            if held.covers(choice):
                if not held.add(device):
                    for one in added:
                        one.pop()
                    return False
                added.append(held)
        if not choice.is_admin:
            if not self._draw(device):
                for one in added:
                    one.pop()
                return False
            self._used.add(device.id)
        self.given[claim].append(Given(choice, device))
        return True

    def _give_back(self, claim: str, choice: Choice, device: Device) -> None:
        self.given[claim].pop()
        for held in self._constraints[claim]:
            if held.covers(choice):
                held.pop()
        if not choice.is_admin:
            self._used.discard(device.id)
            for key, amount in device.consumes.items():
                self._counters[_pool_of(device), key] += amount

    def _draw(self, device: Device) -> bool:
        """Takes what the device needs of its pool's counters; False, with nothing taken, where there is too little."""
        pool, none = _pool_of(device), Quantity.of(0)
        if any(self._counters.get((pool, key), none) < amount for key, amount in device.consumes.items()):
            return False
        for key, amount in device.consumes.items():
            self._counters[pool, key] -= amount
        return True

    def _of_choice(self, choice: Choice) -> list[Device] | None:
        """The devices among which a choice has to choose; None where it can't be met whatever else is chosen."""
        if choice not in self._candidates:
            self._candidates[choice] = self._find(choice)
        return self._candidates[choice]

    def _find(self, choice: Choice) -> list[Device] | None:
        found = []
        for pool, device in self._devices(choice):
            if not is_candidate(device, choice, self._facts):
                continue
            if pool.fault and choice.takes_all:
                where = "/".join(pool.id)
                raise NotAllocated(
                    f"request {choice.name}: asks for all devices, but resource pool {where} {pool.fault}"
                )
            is_free = choice.is_admin or device.id not in self._facts.taken
            if is_free:
                found.append(device)
            elif choice.takes_all:
                return None
        return found if choice.takes_all or len(found) >= choice.count else None

    def _devices(self, choice: Choice) -> Iterator[tuple[Pool, Device]]:
        for pool in self._pools:
            if not pool.fault or choice.takes_all:
                for device in pool.devices:
                    yield pool, device


def _pool_of(device: Device) -> PoolId:
    return PoolId(device.id.driver, device.id.pool)
