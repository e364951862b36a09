"""Rates from two samples."""

from __future__ import annotations

import pytest

from tiphys_kubelet.stats.readings import ContainerReading, Rate, Reading, Sample, rate_between, usage_between

S = 1_000_000_000


def at(second: float, cpu_s: float) -> Reading:
    """A reading."""
    return Reading(int(second * S), int(cpu_s * S), 1000)


def container(id: str, reading: Reading, *, started_s: float = 0.0) -> ContainerReading:
    """A container of pod p."""
    return ContainerReading(id, "p", "default", "web", "app", reading, started_ns=int(started_s * S))


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (at(10, 1), at(20, 6), Rate(S // 2, 10.0)),
        (at(10, 1), at(10.95, 1.95), Rate(S, 0.95)),
        (at(10, 1), at(20, 1), Rate(0, 10.0)),
        (None, at(20, 6), None),
        (at(10, 6), at(20, 1), None),
        (at(10, 1), at(10.5, 1.4), None),
        (at(10, 1), at(9, 2), None),
    ],
    ids=["half-a-core", "least-window", "idle", "first", "counter-began-anew", "too-close", "clock-went-back"],
)
def test_rate_between_two_readings(before: Reading | None, after: Reading, wanted: Rate | None) -> None:
    assert rate_between(before, after) == wanted


def test_container_that_began_between_samples_counts_from_its_start() -> None:
    before = Sample(0.0, [container("old", at(10, 1))])
    after = Sample(
        10.0,
        [
            container("old", at(20, 3)),
            container("new", at(20, 4), started_s=16),
            container("newest", at(20, 0.3), started_s=19.5),
            container("unknown", at(20, 4)),
        ],
    )
    usage = usage_between(before, after)
    assert usage.containers == {"old": Rate(S // 5, 10.0), "new": Rate(S, 4.0)}


def test_pods_and_node_have_rates_where_both_samples_have_them() -> None:
    before = Sample(0.0, pods={"a": at(10, 1), "gone": at(10, 1)}, node=at(10, 5))
    after = Sample(10.0, pods={"a": at(20, 2), "b": at(20, 2)}, node=at(20, 25))
    usage = usage_between(before, after)
    assert usage.pods == {"a": Rate(S // 10, 10.0)}
    assert usage.node == Rate(2 * S, 10.0)
    assert usage_between(None, after).pods == {}
