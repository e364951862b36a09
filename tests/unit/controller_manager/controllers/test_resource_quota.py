"""Quotas are counted: when they appear, when what they count goes, never too little while writes are under way."""

from __future__ import annotations

from typing import Any

from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1 import config_map_pb2, pod_pb2, resource_quota_pb2
from tiphys_apimachinery.pod_resources import read_amounts
from tiphys_controller_manager.controllers.resource_quota.controller import RESYNC_S, SETTLE_S

NAME = "resourcequota-controller"
Quota = resource_quota_pb2.ResourceQuota


def quota(**hard: str) -> Any:
    made: Any = Quota()
    made.metadata.name, made.metadata.namespace = "q", "default"
    for name, amount in hard.items():
        made.spec.hard[name].string = amount
    return made


def pod(name: str) -> Any:
    made: Any = pod_pb2.Pod()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.containers.add(name="c", image="i").resources.requests["cpu"].string = "250m"
    return made


async def used(home: House) -> dict[str, str]:
    found: Any = await home.client.get(Quota, "q", "default")
    return {name: str(amount) for name, amount in sorted(read_amounts(found.status.used).items())}


async def test_I25_B27_a_new_quota_is_counted_at_once() -> None:
    async with house(NAME) as home:
        await home.client.create(pod("a"))
        await home.client.create(quota(pods="5", cpu="2", secrets="1"))
        await home.settle()
        assert await used(home) == {"cpu": "250m", "pods": "1", "secrets": "0"}
        found: Any = await home.client.get(Quota, "q", "default")
        assert dict(read_amounts(found.status.hard)) == dict(read_amounts(found.spec.hard))


async def test_I25_B27_what_ends_is_given_back_when_no_write_can_be_under_way() -> None:
    async with house(NAME) as home:
        await home.client.create(pod("a"))
        await home.client.create(quota(pods="5"))
        await home.settle()
        await home.client.delete(pod_pb2.Pod, "a", "default", grace_period_s=0)
        await home.settle()
        assert await used(home) == {"pods": "1"}
        await home.run_for(SETTLE_S)
        assert await used(home) == {"pods": "0"}


async def test_I25_B27_what_admission_counts_meanwhile_is_not_lost() -> None:
    async with house(NAME) as home:
        await home.client.create(pod("a"))
        await home.client.create(quota(pods="5"))
        await home.settle()
        await home.client.delete(pod_pb2.Pod, "a", "default", grace_period_s=0)
        await home.settle()
        booked: Any = await home.client.get(Quota, "q", "default")
        booked.status.used["pods"].string = "2"
        await home.client.update_status(booked)
        await home.run_for(SETTLE_S)
        assert await used(home) == {"pods": "2"}, "counted a moment ago: its pod may not be stored yet"
        await home.run_for(SETTLE_S)
        assert await used(home) == {"pods": "0"}


async def test_I25_B27_what_nothing_tells_of_is_counted_by_the_resync() -> None:
    async with house(NAME) as home:
        await home.client.create(quota(configmaps="5"))
        await home.settle()
        made: Any = config_map_pb2.ConfigMap()
        made.metadata.name, made.metadata.namespace = "c", "default"
        await home.client.create(made)
        await home.run_for(RESYNC_S)
        assert await used(home) == {"configmaps": "1"}
