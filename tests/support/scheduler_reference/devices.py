"""Which devices claims get on a node, by trying everything: every choice and every set of devices, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product

from tiphys_apimachinery.quantity import Quantity
from tiphys_apimachinery.resource_claims import is_covered, qualified
from tiphys_scheduler.dynamic_resources.allocator import Facts
from tiphys_scheduler.dynamic_resources.model import Choice, Device, Pool, PoolId, Wish
from tiphys_scheduler.dynamic_resources.selectors import is_met

Answer = list[tuple[str, str, tuple[str, ...]]]


def allocate_slowly(wishes: Sequence[Wish], pools: Sequence[Pool], facts: Facts) -> Answer | None:
    """Claim, choice and devices of each request, for the first way that breaks no rule; None where there is none."""
    slots = [(wish, choices) for wish in wishes for choices in wish.requests]
    # In the order of a search that goes deeper before it goes on: choice and devices of the first request first.
    options = [list(_options(choices, pools, facts)) for _, choices in slots]
    for way in product(*options):
        taken = [(wish, choice, devices) for (wish, _), (choice, devices) in zip(slots, way, strict=True)]
        if _is_allowed(taken, pools, facts):
            return [(w.claim, choice.name, tuple(d.id.device for d in devices)) for w, choice, devices in taken]
    return None


def _options(
    choices: Sequence[Choice], pools: Sequence[Pool], facts: Facts
) -> Iterator[tuple[Choice, tuple[Device, ...]]]:
    for choice in choices:
        of_class = facts.selectors_of(choice.device_class)
        if of_class is None:
            continue
        fitting = [
            device
            for pool in pools
            for device in pool.devices
            if all(is_met(text, device.variable) for text in (*of_class, *choice.selectors))
        ]
        if choice.takes_all:
            if fitting and (choice.is_admin or all(device.id not in facts.taken for device in fitting)):
                yield choice, tuple(fitting)
            continue
        free = [device for device in fitting if choice.is_admin or device.id not in facts.taken]
        for devices in combinations(free, choice.count):
            yield choice, devices


def _is_allowed(taken: list[tuple[Wish, Choice, tuple[Device, ...]]], pools: Sequence[Pool], facts: Facts) -> bool:
    own = [device.id for _, choice, devices in taken if not choice.is_admin for device in devices]
    if len(own) != len(set(own)):
        return False
    return _counters_suffice(taken, pools, facts) and all(
        _holds(wish, [(choice, devices) for other, choice, devices in taken if other is wish])
        for wish in {id(wish): wish for wish, _, _ in taken}.values()
    )


def _holds(wish: Wish, given: list[tuple[Choice, tuple[Device, ...]]]) -> bool:
    for constraint in wish.constraints:
        values = [
            device.attributes.get(qualified(constraint.attribute, device.id.driver))
            for choice, devices in given
            if is_covered(choice.name, constraint.requests)
            for device in devices
        ]
        if any(value is None for value in values):
            return False
        kinds = {(type(value), value) for value in values}
        if len(kinds) != len(values) if constraint.is_distinct else len(kinds) > 1:
            return False
    return True


def _counters_suffice(
    taken: list[tuple[Wish, Choice, tuple[Device, ...]]], pools: Sequence[Pool], facts: Facts
) -> bool:
    for pool in pools:
        for key, amount in pool.counters.items():
            left = amount - facts.used.get((pool.id, key), Quantity.of(0))
            for _, choice, devices in taken:
                for device in devices:
                    if not choice.is_admin and PoolId(device.id.driver, device.id.pool) == pool.id:
                        left = left - device.consumes.get(key, Quantity.of(0))
            if left < Quantity.of(0):
                return False
    return True
