"""The controller on a server in memory: scales, conditions, events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.controller_manager.harness import House, house
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import Conflict, ServiceUnavailable

NAME = "horizontal-pod-autoscaler-controller"
Scaler = v2.HorizontalPodAutoscaler


@dataclass
class Queue:
    """An external metrics server with one number."""

    length: int = 0
    is_down: bool = False
    asked: int = 0

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The number."""
        self.asked += 1
        if self.is_down:
            raise ServiceUnavailable("down")
        return {"items": [{"value": str(self.length)}]}

    async def close(self) -> None:
        """Nothing is open."""


def deployment(replicas: int) -> Any:
    """A Deployment whose pods nobody makes."""
    document = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}},
    }
    return json_codec.from_json(apps_pb2.Deployment, document, None)


def scaler(**spec: Any) -> Any:
    """An autoscaler by the queue's length, ten a pod."""
    metric = {
        "type": "External",
        "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}},
    }
    document = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [metric],
            **spec,
        },
    }
    return json_codec.from_json(Scaler, document, None)


@dataclass
class World:
    """The controller, and the number it goes by."""

    house: House
    queue: Queue

    async def replicas(self) -> int:
        """What the Deployment wants."""
        found = await self.house.client.get(apps_pb2.Deployment, "web", "default")
        return int(found.spec.replicas)

    async def scaler(self) -> Any:
        """The autoscaler as stored."""
        return await self.house.client.get(Scaler, "web", "default")

    async def see(self, count: int) -> None:
        """The Deployment says that it has so many replicas."""
        found = await self.house.client.get(apps_pb2.Deployment, "web", "default")
        found.status.replicas = count
        await self.house.client.update_status(found)

    async def said(self) -> dict[str, tuple[str, str]]:
        """Status and reason by condition."""
        return {one.type: (one.status, one.reason) for one in (await self.scaler()).status.conditions}


@asynccontextmanager
async def world(replicas: int | None = 2, **flags: Any) -> AsyncIterator[World]:
    """A Deployment of so many replicas, none for None, all of them seen."""
    queue = Queue()
    async with house(NAME, rest=queue, **flags) as built:
        made = World(built, queue)
        if replicas is not None:
            await built.client.create(deployment(replicas))
            await made.see(replicas)
        yield made


async def test_B31_scales_at_once_and_then_every_fifteen_seconds() -> None:
    async with world() as it:
        it.queue.length = 35
        await it.house.client.create(scaler())
        await it.house.settle()
        assert await it.replicas() == 4
        assert it.queue.asked == 1
        found = (await it.scaler()).status
        assert (found.currentReplicas, found.desiredReplicas) == (2, 4)
        assert found.HasField("lastScaleTime")
        assert found.observedGeneration == 1
        assert await it.said() == {
            "AbleToScale": ("True", "SucceededRescale"),
            "ScalingActive": ("True", "ValidMetricFound"),
            "ScalingLimited": ("False", "DesiredWithinRange"),
        }
        assert it.house.events.seen == [
            ("Normal", "SuccessfulRescale", "New size: 4; reason: external metric queue above target")
        ]
        await it.see(4)
        await it.house.run_for(14.0)
        assert it.queue.asked == 1
        await it.house.run_for(2.0)
        assert it.queue.asked == 2
        assert (await it.scaler()).status.currentReplicas == 4


async def test_B31_goes_down_when_it_has_wished_so_for_five_minutes() -> None:
    async with world(6) as it:
        it.queue.length = 60
        await it.house.client.create(scaler())
        await it.house.run_for(30.0)
        it.queue.length = 10
        await it.house.run_for(280.0)
        assert await it.replicas() == 6
        assert (await it.said())["AbleToScale"] == ("True", "ScaleDownStabilized")
        await it.house.run_for(60.0)
        assert await it.replicas() == 1


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0], ids=["back", "forward"])
async def test_calendar_that_jumps_changes_nothing_of_how_long_it_waits(by_s: float) -> None:
    async with world(6) as it:
        it.queue.length = 60
        await it.house.client.create(scaler())
        await it.house.run_for(30.0)
        it.queue.length = 10
        it.house.clock.set_wall(by_s)
        await it.house.run_for(280.0)
        assert await it.replicas() == 6
        await it.house.run_for(60.0)
        assert await it.replicas() == 1


async def test_down_stabilization_is_a_flag() -> None:
    async with world(6, horizontal_pod_autoscaler_downscale_stabilization_s=30.0) as it:
        it.queue.length = 10
        await it.house.client.create(scaler())
        await it.house.run_for(50.0)
        assert await it.replicas() == 1


async def test_measures_that_are_away_change_nothing_and_are_asked_for_again() -> None:
    async with world(3) as it:
        it.queue.is_down = True
        await it.house.client.create(scaler())
        await it.house.run_for(31.0)
        assert await it.replicas() == 3
        assert it.queue.asked == 3
        assert (await it.said())["ScalingActive"] == ("False", "FailedGetExternalMetric")
        it.queue.is_down, it.queue.length = False, 50
        await it.house.run_for(15.0)
        assert await it.replicas() == 5


async def test_target_that_is_not_there_is_told() -> None:
    async with world(None) as it:
        await it.house.client.create(scaler())
        await it.house.settle()
        assert (await it.said())["AbleToScale"] == ("False", "FailedGetScale")
        assert it.house.events.reasons() == ["FailedGetScale"]
        await it.house.client.create(deployment(0))
        await it.house.run_for(15.0)
        assert await it.said() == {
            "AbleToScale": ("True", "SucceededGetScale"),
            "ScalingActive": ("False", "ScalingDisabled"),
        }


async def test_kind_without_scale_is_told() -> None:
    async with world() as it:
        await it.house.client.create(scaler(scaleTargetRef={"apiVersion": "v1", "kind": "Service", "name": "web"}))
        await it.house.settle()
        conditions = (await it.scaler()).status.conditions
        assert "Service of v1 does not implement the scale subresource" in conditions[0].message


async def test_scale_that_somebody_else_changes_meanwhile_is_tried_again() -> None:
    async with world() as it:
        it.queue.length = 35
        it.house.client.server.fail("UpdateScale", apps_pb2.Deployment, Conflict("changed"))
        await it.house.client.create(scaler())
        await it.house.settle()
        assert (await it.said())["AbleToScale"] == ("False", "FailedUpdateScale")
        await it.house.run_for(15.0)
        assert await it.replicas() == 4


async def test_changed_spec_is_looked_at_at_once() -> None:
    async with world(5) as it:
        it.queue.length = 50
        made = await it.house.client.create(scaler())
        await it.house.settle()
        made = await it.scaler()
        made.spec.maxReplicas = 3
        await it.house.client.update(made)
        await it.house.settle()
        assert await it.replicas() == 3
        assert (await it.scaler()).status.observedGeneration == 2


async def test_autoscaler_made_anew_under_its_name_knows_nothing_of_the_old_one() -> None:
    async with world(6) as it:
        it.queue.length = 60
        await it.house.client.create(scaler())
        await it.house.settle()
        await it.house.client.delete(Scaler, "web", "default")
        await it.house.settle()
        loop: Any = it.house.loops[NAME].reconciler
        assert loop._histories == {}


async def test_two_autoscalers_of_the_same_pods_leave_them_alone_until_one_is_gone() -> None:
    async with world(2) as it:
        it.queue.length = 20
        await it.house.client.create(scaler())
        await it.house.settle()
        pod: Any = pod_pb2.Pod()
        pod.metadata.name, pod.metadata.namespace = "web-1", "default"
        pod.metadata.labels["app"] = "web"
        await it.house.client.create(pod)
        rival = scaler()
        rival.metadata.name = "rival"
        await it.house.client.create(rival)
        await it.house.settle()
        it.queue.length = 50
        await it.house.run_for(16.0)
        assert await it.replicas() == 2
        assert (await it.said())["ScalingActive"] == ("False", "AmbiguousSelector")
        assert "AmbiguousSelector" in it.house.events.reasons()
        await it.house.client.delete(Scaler, "rival", "default")
        await it.house.run_for(16.0)
        assert await it.replicas() == 5


async def test_target_that_does_not_say_which_pods_it_has_is_told() -> None:
    async with world(2) as it:
        found = await it.house.client.get(apps_pb2.Deployment, "web", "default")
        del found.spec.selector.matchLabels["app"]
        await it.house.client.update(found)
        await it.house.client.create(scaler())
        await it.house.settle()
        assert (await it.said())["ScalingActive"] == ("False", "InvalidSelector")
        assert it.house.events.reasons() == ["SelectorRequired", "FailedComputeMetricsReplicas"]
