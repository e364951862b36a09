"""Controllers use the present state only: begun on whatever the store may hold, they come to what is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiphys.api.apps.v1.apps_pb2 import Deployment, ReplicaSet, StatefulSet
from tiphys.api.batch.v1.batch_pb2 import Job
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_apimachinery.meta import get_controller_of, is_condition_true, new_controller_ref
from tiphys_client.client import Client
from tiphys_cluster.testing.cluster import Cluster, cluster
from tiphys_cluster.testing.hollow_nodes import RUNS_FOR_S
from tiphys_cluster.testing.world import is_ready
from tiphys_component import log
from tiphys_component.virtual_time import virtual_time

NAMESPACE = "default"
_WITHIN_S = 3600.0
_TRACKING = "batch.kubernetes.io/job-tracking"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log.configure("error")
    yield
    log.configure("debug")


@dataclass(frozen=True)
class FoundPod:
    """A pod that is there already, in some phase, perhaps ready, perhaps told to go."""

    phase: str
    ready: bool
    going: bool


@dataclass(frozen=True)
class FoundSet:
    """A ReplicaSet of some template, with a size, a status that may be wrong, and some of its pods."""

    image: str
    replicas: int
    told: int
    pods: tuple[FoundPod, ...]


@dataclass(frozen=True)
class Found:
    """What lies in the store. The owner of lost_sets and lost_pods does not exist any more."""

    wanted: int
    image: str
    told: int
    sets: tuple[FoundSet, ...]
    lost_sets: tuple[FoundSet, ...]
    lost_pods: tuple[FoundPod, ...]
    bare_pods: tuple[FoundPod, ...]
    named: tuple[tuple[int, FoundPod], ...]
    names_wanted: int
    job_pods: tuple[FoundPod, ...]
    completions: int


_pod = st.builds(
    FoundPod,
    phase=st.sampled_from(("Pending", "Running", "Succeeded", "Failed")),
    ready=st.booleans(),
    going=st.sampled_from((False, False, True)),
)
_some_pods = st.lists(_pod, max_size=4).map(tuple)
_set = st.builds(
    FoundSet,
    image=st.sampled_from(("v0", "v1", "v2")),
    replicas=st.integers(0, 6),
    told=st.integers(0, 9),
    pods=_some_pods,
)
_sets = st.lists(_set, max_size=3, unique_by=lambda one: one.image).map(tuple)
_found = st.builds(
    Found,
    wanted=st.integers(0, 5),
    image=st.sampled_from(("v1", "v2")),
    told=st.integers(0, 9),
    sets=_sets,
    lost_sets=_sets,
    lost_pods=_some_pods,
    bare_pods=st.lists(_pod, max_size=2).map(tuple),
    named=st.lists(st.tuples(st.integers(0, 4), _pod), max_size=3, unique_by=lambda one: one[0]).map(tuple),
    names_wanted=st.integers(0, 3),
    job_pods=_some_pods,
    completions=st.integers(1, 4),
)


class Writer:
    """Writes a state as its parts' makers would have, and then leaves it half done."""

    def __init__(self, client: Client, found: Found) -> None:
        self._client = client
        self._found = found
        self._count = 0

    async def write(self) -> None:
        """All of it."""
        found = self._found
        account = ServiceAccount()
        account.metadata.name, account.metadata.namespace = "default", NAMESPACE
        await self._client.create(account)
        made = Deployment()
        _fill(made, "app", found.image, found.wanted)
        stored = await self._client.create(made)
        stored.status.replicas = stored.status.availableReplicas = stored.status.readyReplicas = found.told
        stored.status.observedGeneration = 1
        await self._client.update_status(stored)
        for one in found.sets:
            await self._set(one, "app", new_controller_ref(stored, "apps/v1", "Deployment"))
        lost = new_controller_ref(stored, "apps/v1", "Deployment")
        lost.name, lost.uid = "gone", "0b50e3c8-0000-4000-8000-000000000000"
        for one in found.lost_sets:
            await self._set(one, "gone", lost)
        lost.kind = "ReplicaSet"
        for pod in found.lost_pods:
            await self._pod(pod, {"app": "gone"}, lost)
        for pod in found.bare_pods:
            await self._pod(pod, {"app": "app"}, None)
        await self._stateful_set()
        await self._job()

    async def _set(self, one: FoundSet, app: str, owner: Any) -> None:
        made = ReplicaSet()
        _fill(made, f"{app}-{one.image}", one.image, one.replicas)
        labels = {"app": app, "pod-template-hash": one.image}
        made.spec.selector.matchLabels.clear()
        made.spec.template.metadata.labels.clear()
        for held in (made.metadata.labels, made.spec.selector.matchLabels, made.spec.template.metadata.labels):
            held.update(labels)
        made.metadata.ownerReferences.append(owner)
        stored = await self._client.create(made)
        stored.status.replicas = one.told
        await self._client.update_status(stored)
        for pod in one.pods:
            await self._pod(pod, labels, new_controller_ref(stored, "apps/v1", "ReplicaSet"), image=one.image)

    async def _stateful_set(self) -> None:
        made = StatefulSet()
        _fill(made, "db", "v1", self._found.names_wanted)
        made.spec.serviceName = "db"
        stored = await self._client.create(made)
        owner = new_controller_ref(stored, "apps/v1", "StatefulSet")
        for number, pod in self._found.named:
            await self._pod(pod, {"app": "db"}, owner, name=f"db-{number}")

    async def _job(self) -> None:
        made = Job()
        made.metadata.name, made.metadata.namespace = "work", NAMESPACE
        made.spec.completions, made.spec.parallelism, made.spec.backoffLimit = self._found.completions, 2, 20
        made.spec.template.spec.restartPolicy = "Never"
        made.spec.template.metadata.annotations[RUNS_FOR_S] = "5"
        made.spec.template.spec.containers.add(name="c", image="v1")
        stored = await self._client.create(made)
        owner = new_controller_ref(stored, "batch/v1", "Job")
        labels = dict(stored.spec.template.metadata.labels)
        for pod in self._found.job_pods:
            await self._pod(pod, labels, owner, tracked=True)

    async def _pod(
        self,
        found: FoundPod,
        labels: dict[str, str],
        owner: Any,
        *,
        image: str = "v1",
        name: str = "",
        tracked: bool = False,
    ) -> None:
        self._count += 1
        pod = Pod()
        pod.metadata.name, pod.metadata.namespace = name or f"found-{self._count}", NAMESPACE
        pod.metadata.labels.update(labels)
        if owner is not None:
            pod.metadata.ownerReferences.append(owner)
        if tracked:
            pod.metadata.finalizers.append(_TRACKING)
            pod.metadata.annotations[RUNS_FOR_S] = "5"
            pod.spec.restartPolicy = "Never"
        pod.spec.containers.add(name="c", image=image)
        if found.phase != "Pending":
            pod.spec.nodeName = f"n{self._count % 3}"
        stored = await self._client.create(pod)
        stored.status.phase = found.phase
        if found.ready and found.phase == "Running":
            stored.status.conditions.add(type="Ready", status="True").lastTransitionTime.seconds = 1_700_000_000
        stored = await self._client.update_status(stored)
        if found.going:
            await self._client.delete(Pod, stored.metadata.name, NAMESPACE)


def _fill(made: Any, name: str, image: str, replicas: int) -> None:
    made.metadata.name, made.metadata.namespace = name, NAMESPACE
    made.spec.replicas = replicas
    made.spec.selector.matchLabels["app"] = name
    made.spec.template.metadata.labels["app"] = name
    made.spec.template.spec.containers.add(name="c", image=image)


async def what_is_wrong(made: Cluster, found: Found) -> list[str]:
    """In what the cluster is not as its objects ask for."""
    client = made.client
    pods = (await client.list(Pod, NAMESPACE)).items
    sets = {one.metadata.uid: one for one in (await client.list(ReplicaSet, NAMESPACE)).items}
    deployment = await client.get(Deployment, "app", NAMESPACE)
    job = await client.get(Job, "work", NAMESPACE)
    named = await client.get(StatefulSet, "db", NAMESPACE)
    known = {deployment.metadata.uid, job.metadata.uid, named.metadata.uid, *sets}
    owners = {pod.metadata.name: get_controller_of(pod) for pod in pods}
    wrong = [f"{name} is an orphan" for name, owner in owners.items() if owner is not None and owner.uid not in known]
    wrong += [f"{one.metadata.name} is an orphan" for one in sets.values() if _owner_uid(one) not in known]
    of_sets = [pod for pod in pods if (owner := owners[pod.metadata.name]) is not None and owner.uid in sets]
    images = [pod.spec.containers[0].image for pod in of_sets if is_ready(pod)]
    if images != [found.image] * found.wanted:
        wrong.append(f"pods of {images}, wanted {found.wanted} of {found.image}")
    status = deployment.status
    if (status.replicas, status.availableReplicas, status.observedGeneration) != (
        found.wanted,
        found.wanted,
        deployment.metadata.generation,
    ):
        wrong.append(f"the Deployment says {status}")
    names = sorted(pod.metadata.name for pod in pods if is_ready(pod) and _owner_uid(pod) == named.metadata.uid)
    if names != [f"db-{number}" for number in range(found.names_wanted)]:
        wrong.append(f"the StatefulSet has {names}")
    if not is_condition_true(job.status.conditions, "Complete") or job.status.succeeded < found.completions:
        wrong.append(f"the Job says {job.status}")
    held = [pod.metadata.name for pod in pods if pod.metadata.finalizers]
    return wrong + [f"{name} is held" for name in held]


def _owner_uid(obj: Any) -> str:
    owner = get_controller_of(obj)
    return owner.uid if owner is not None else ""


def begin_on(found: Found) -> list[str]:
    """Start the control plane on a state; what is wrong in the end."""
    wrong: list[str] = []
    with virtual_time() as (runner, clock):

        async def main() -> None:
            async with cluster(clock, before=lambda client: Writer(client, found).write()) as made:
                for number in range(3):
                    await made.nodes.add(f"n{number}")

                async def is_right() -> bool:
                    wrong[:] = await what_is_wrong(made, found)
                    return not wrong

                end = clock.monotonic() + _WITHIN_S
                while not await is_right() and clock.monotonic() < end:
                    await clock.sleep(10)
                wrong.extend(map(repr, made.failures()))

        runner.run(main())
    return wrong


@given(found=_found)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_M8_controllers_begun_on_any_state_come_to_what_is_wanted(found: Found) -> None:
    assert begin_on(found) == []


def test_M8_a_controller_that_is_missing_is_noticed() -> None:
    """The check can fail: a state that nobody works on is not what is wanted."""
    pod = FoundPod("Running", ready=True, going=False)
    found = Found(2, "v2", 0, (FoundSet("v1", 2, 2, (pod, pod)),), (), (pod,), (), (), 1, (), 1)

    with virtual_time() as (runner, clock):

        async def main() -> list[str]:
            names = ("*", "-replicaset-controller", "-garbage-collector-controller")
            async with cluster(clock, controllers=names, before=lambda client: Writer(client, found).write()) as made:
                await made.nodes.add("n0")
                await clock.sleep(300)
                return await what_is_wrong(made, found)

        wrong = runner.run(main())
    assert "found-3 is an orphan" in wrong
    assert any(one.startswith("pods of ") for one in wrong)
