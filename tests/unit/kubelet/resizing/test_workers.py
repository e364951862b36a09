"""Resizes of live pods, against the runtime in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.kubelet.resizing.builders import MI, set_resources
from tests.unit.kubelet.test_workers import NODE, World, world
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.pod_pb2 import Pod, PodCondition
from tiphys_cri.errors import CRIError
from tiphys_kubelet.resizing import allocation as rules


def make_pod(name: str, resources: str, *, restart: str = "", policy: str = "Always") -> Pod:
    pod = Pod()
    pod.metadata.name, pod.metadata.namespace = name, "default"
    pod.metadata.generation = 1
    pod.spec.nodeName, pod.spec.restartPolicy = NODE, policy
    pod.spec.containers.add(name="app", image="busybox", imagePullPolicy="IfNotPresent", command=["run"])
    return set_resources(pod, "app", resources, restart=restart)


async def resize(here: World, name: str, resources: str) -> None:
    pod = here.status(name)
    assert pod is not None
    changed = Pod()
    changed.CopyFrom(pod)
    set_resources(changed, "app", resources)
    changed.metadata.generation = pod.metadata.generation + 1
    await here.client.update(changed)


def container(here: World, name: str) -> Any:
    pod = here.status(name)
    statuses = pod.status.containerStatuses if pod is not None else ()
    return statuses[0] if statuses else None


def condition(here: World, name: str, kind: str) -> PodCondition | None:
    pod = here.status(name)
    assert pod is not None
    return next((c for c in pod.status.conditions if c.type == kind), None)


def runs(here: World, *names: str) -> Callable[[], bool]:
    return lambda: all((c := container(here, n)) is not None and c.state.HasField("running") for n in names)


def has_cpu(here: World, name: str, limit: str) -> Callable[[], bool]:
    return lambda: container(here, name).resources.limits["cpu"].string == limit


async def told(here: World, reason: str) -> list[str]:
    """Messages of events; the recorder writes them a moment later."""
    await here.settle(1.0)
    listed = await here.client.list(Event, "default")
    return [event.message for event in listed.items if event.reason == reason]


async def test_B32_a_live_pod_is_resized_without_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod("web", "100m 32Mi / 200m 64Mi"))
        await here.until(runs(here, "web"))
        before = container(here, "web")
        assert before.allocatedResources["cpu"].string == "100m"
        assert before.resources.limits["memory"].string == "64Mi"
        await resize(here, "web", "150m 48Mi / 300m 96Mi")
        await here.until(has_cpu(here, "web", "300m"))
        await here.until(lambda: condition(here, "web", "PodResizeInProgress") is None)
        after = container(here, "web")
        assert (after.containerID, after.restartCount) == (before.containerID, 0)
        assert after.allocatedResources["cpu"].string == "150m"
        assert after.resources.limits["memory"].string == "96Mi"
        runtime = await here.runtime.container_status(after.containerID.removeprefix("containerd://"))
        linux = runtime.resources.linux
        assert (linux.cpu_shares, linux.cpu_quota, linux.memory_limit_in_bytes) == (153, 30_000, 96 * MI)
        assert len(await told(here, "ResizeStarted")) == len(await told(here, "ResizeCompleted")) == 1


async def test_D34_what_the_node_can_never_give_is_infeasible_and_the_pod_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod("web", "100m 32Mi / 100 64Mi"))
        await here.until(runs(here, "web"))
        await resize(here, "web", "900 32Mi / 900 64Mi")
        await here.until(lambda: condition(here, "web", "PodResizePending") is not None)
        pending = condition(here, "web", "PodResizePending")
        assert pending is not None
        assert (pending.reason, pending.observedGeneration) == ("Infeasible", 2)
        assert "Node didn't have enough capacity: cpu, requested: 900000" in pending.message
        assert container(here, "web").allocatedResources["cpu"].string == "100m"
        assert here.restarts() == 0
        await resize(here, "web", "100m 32Mi / 100 64Mi")
        await here.until(lambda: condition(here, "web", "PodResizePending") is None)
        assert len(await told(here, "ResizeInfeasible")) == 1


async def test_D34_a_deferred_resize_is_done_when_room_comes(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        cpus = here.kubelet.machine.cpus
        await here.client.create(make_pod("web", "100m 32Mi"))
        await here.client.create(make_pod("other", f"{cpus * 1000 - 500}m 32Mi"))
        await here.until(runs(here, "web", "other"))
        await resize(here, "web", "600m 32Mi")
        await here.until(lambda: condition(here, "web", "PodResizePending") is not None)
        pending = condition(here, "web", "PodResizePending")
        assert pending is not None
        assert pending.reason == "Deferred"
        await here.client.delete(Pod, "other", "default", grace_period_s=0)
        await here.until(lambda: container(here, "web").allocatedResources["cpu"].string == "600m")
        await here.until(lambda: condition(here, "web", "PodResizePending") is None)
        metric = here.kubelet.metrics.registry.value
        assert metric("kubelet_pod_deferred_accepted_resizes_total", retry_trigger="pods_removed") == 1
        assert metric("kubelet_pod_pending_resizes", reason="deferred") == 0


async def test_D34_a_smaller_neighbour_makes_room_too(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        cpus = here.kubelet.machine.cpus
        await here.client.create(make_pod("web", "100m 32Mi"))
        await here.client.create(make_pod("other", f"{cpus * 1000 - 200}m 32Mi"))
        await here.until(runs(here, "web", "other"))
        await resize(here, "web", "300m 32Mi")
        await here.until(lambda: condition(here, "web", "PodResizePending") is not None)
        await resize(here, "other", "100m 32Mi")
        await here.until(lambda: container(here, "web").allocatedResources["cpu"].string == "300m")


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
async def test_D34_a_container_that_must_restart_for_it_does(tmp_path: Path, policy: str) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod("web", "100m 32Mi / 200m 64Mi", restart="memory", policy=policy))
        await here.until(runs(here, "web"))
        first = container(here, "web").containerID
        await resize(here, "web", "100m 32Mi / 200m 96Mi")
        await here.until(lambda: container(here, "web").restartCount == 1 and runs(here, "web")())
        await here.until(lambda: condition(here, "web", "PodResizeInProgress") is None)
        assert container(here, "web").containerID != first
        assert container(here, "web").resources.limits["memory"].string == "96Mi"


async def test_B32_a_refusing_runtime_is_told_of_and_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod("web", "100m 32Mi / 200m 64Mi"))
        await here.until(runs(here, "web"))
        here.runtime.fail("update_container_resources", CRIError("unable to set memory limit"))
        await resize(here, "web", "100m 32Mi / 300m 64Mi")
        await here.until(
            lambda: (c := condition(here, "web", "PodResizeInProgress")) is not None and c.reason == "Error"
        )
        await here.settle(5.5)
        await here.until(has_cpu(here, "web", "300m"))
        await here.until(lambda: condition(here, "web", "PodResizeInProgress") is None)
        assert here.restarts() == 0
        assert len(await told(here, "ResizeError")) == 1


async def test_B32_a_kubelet_killed_after_the_grant_does_the_rest(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod("web", "100m 32Mi / 200m 64Mi"))
        await here.until(runs(here, "web"))
        resizes = here.kubelet.resizes
        await resize(here, "web", "100m 32Mi / 300m 64Mi")
        await here.until(has_cpu(here, "web", "300m"))
        kept = rules.decode((tmp_path / rules.FILE_NAME).read_bytes())
        assert [c["app"].limits["cpu"].string for c in kept.values()] == ["300m"]
        await here.client.delete(Pod, "web", "default", grace_period_s=0)
        await here.until(lambda: here.kubelet.workers.workers() == ())
        await resizes.save()
        assert rules.decode((tmp_path / rules.FILE_NAME).read_bytes()) == {}


async def test_B32_grants_of_pods_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    allocated = rules.allocation_of(make_pod("old", "1 1Mi"))
    (tmp_path / rules.FILE_NAME).write_bytes(rules.encode({"gone": allocated}))
    async with world(tmp_path) as here:
        await here.client.create(make_pod("web", "100m 32Mi / 200m 64Mi"))
        await here.until(runs(here, "web"))
        await here.settle(1.0)
        await here.kubelet.resizes.save()
        assert rules.decode((tmp_path / rules.FILE_NAME).read_bytes()) == {}


async def test_B32_a_pod_has_what_it_was_granted_and_not_what_its_spec_came_to_meanwhile(tmp_path: Path) -> None:
    """The kubelet was away while the spec asked for more than the node has."""
    pod = make_pod("web", "900 32Mi / 900 64Mi")
    pod.metadata.uid = "uid-1"
    kept = rules.allocation_of(make_pod("web", "100m 32Mi / 200m 64Mi"))
    (tmp_path / rules.FILE_NAME).write_bytes(rules.encode({"uid-1": kept}))
    async with world(tmp_path) as here:
        here.client.seed(pod)
        await here.until(runs(here, "web"))
        assert container(here, "web").resources.limits["cpu"].string == "200m"
        assert condition(here, "web", "PodResizePending") is not None
