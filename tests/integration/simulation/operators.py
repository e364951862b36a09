"""Operators of users' own in the simulated cluster: what users do to their objects by a seed, and how it must end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from examples.operators.site import Site, operator
from tests.integration.simulation.notes import Note, notes
from tiphys.api.apps.v1.apps_pb2 import Deployment
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys_apimachinery.errors import NotFound
from tiphys_cluster.testing.cluster import Cluster, cluster
from tiphys_cluster.testing.faults import NONE, Faults, FaultyTransport
from tiphys_cluster.testing.incarnations import Start
from tiphys_component.app import leaves
from tiphys_component.clock import Clock
from tiphys_component.virtual_time import virtual_time
from tiphys_sdk.operators.app import Operator, Options

NAMESPACE = "default"
STEPS = 20
_SITES, _NOTES = 3, 3
_SETTLES_WITHIN_S = 3600.0


@dataclass(slots=True)
class Outcome:
    """How a run ended; failures are empty where all was well, kills say how often an operator was killed."""

    state: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    starts: int = 0


def run(seed: int, faults: Faults) -> Outcome:
    """One run of a seed's deeds on a virtual clock of its own."""
    outcome = Outcome()
    try:
        with virtual_time() as (runner, clock):
            runner.run(_main(seed, faults, clock, outcome))
    except Exception as err:
        outcome.failures += [f"{type(leaf).__name__}: {leaf}" for leaf in leaves(err)]
    return outcome


async def _main(seed: int, faults: Faults, clock: Clock, outcome: Outcome) -> None:
    programs = {one.name: _start(one, clock, seed) for one in (operator, notes)}
    async with cluster(clock, seed=seed, programs=programs) as made:
        for number in range(3):
            await made.nodes.add(f"n{number}")
        await made.until(lambda: _is_served(made), within_s=600)
        made.faults = faults
        rng = Random(f"deeds {seed}")
        for _ in range(STEPS):
            await clock.sleep(rng.choice((0.0, 0.5, 5.0, 40.0)))
            await _deed(made, rng)
        await clock.sleep(30)
        made.faults = NONE
        try:
            await made.until(lambda: _is_settled(made), within_s=_SETTLES_WITHIN_S)
        finally:
            outcome.state = await end_state(made)
            outcome.starts = sum(made.processes[name].starts for name in programs)
            outcome.failures += [f"a process ended by itself: {failure!r}" for failure in made.failures()]


def _start(program: Operator, clock: Clock, seed: int) -> Start:
    async def start(road: FaultyTransport, number: int) -> None:
        options = Options(kubeconfig=Path("unused"), leader_elect_identity=f"{program.name}-{number}")
        await program.run(options, road, clock=clock, rng=Random(f"{program.name} {seed} {number}"))

    return start


async def _is_served(made: Cluster) -> bool:
    """Whether the operators' kinds are there."""
    try:
        await made.client.list(Site, NAMESPACE)
        await made.client.list(Note, NAMESPACE)
    except NotFound:
        return False
    return True


async def _deed(made: Cluster, rng: Random) -> None:
    """Something that a user does: the draws are the same whatever it meets."""
    kind, number = rng.choice(("site", "site", "note", "child", "delete")), rng.randrange(_SITES)
    text, replicas, names = f"text {rng.randrange(4)}", rng.randrange(4), rng.sample("abcd", rng.randrange(4))
    if kind == "site":
        await _put(made, Site, f"s{number}", {"text": text, "replicas": replicas})
    elif kind == "note":
        await _put(made, Note, f"n{number}", {"names": sorted(names), "text": text})
    elif kind == "child":
        # Whoever deletes or changes what an operator owns gets it back.
        await made.client.delete(ConfigMap, f"s{number}", NAMESPACE, absent_ok=True)
    else:
        await made.client.delete(rng.choice((Site, Note)), f"{rng.choice('sn')}{number}", NAMESPACE, absent_ok=True)


async def _put(made: Cluster, cls: Any, name: str, spec: dict[str, Any]) -> None:
    document = {
        "apiVersion": cls.KIND.api_version,
        "kind": cls.KIND.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
    await made.client.patch(cls, name, NAMESPACE, document, type="apply", field_manager="user", force=True)


async def end_state(made: Cluster) -> dict[str, Any]:
    """What there is in the end; moments, versions and uids are left out."""
    client = made.client
    sites, texts = (await client.list(Site, NAMESPACE)).items, (await client.list(ConfigMap, NAMESPACE)).items
    deployments = (await client.list(Deployment, NAMESPACE)).items
    wanted_notes = (await client.list(Note, NAMESPACE)).items
    return {
        "sites": {one.metadata.name: (one.content["spec"], dict(one.status)) for one in sites},
        "notes": {one.metadata.name: (one.content["spec"], dict(one.status)) for one in wanted_notes},
        "texts": {one.metadata.name: dict(one.data) for one in texts if one.metadata.ownerReferences},
        "deployments": {one.metadata.name: (one.spec.replicas, one.status.readyReplicas) for one in deployments},
        # Kept outside of the cluster's ownership: only finalizers clear them away.
        "ledger": sorted(one.metadata.name for one in (await client.list(Secret, NAMESPACE)).items),
    }


async def _is_settled(made: Cluster) -> bool:
    """Whether every object's children are what its spec asks for, and nothing else is there."""
    state = await end_state(made)
    sites, notes_there = state["sites"], state["notes"]
    texts = {name: {"index.html": spec["text"]} for name, (spec, _) in sites.items()}
    texts |= {
        f"{name}-{part}": {"text": spec["text"]} for name, (spec, _) in notes_there.items() for part in spec["names"]
    }
    return (
        state["texts"] == texts
        and state["deployments"] == {name: (spec["replicas"], spec["replicas"]) for name, (spec, _) in sites.items()}
        and all(status.get("ready") == spec["replicas"] for spec, status in sites.values())
        and all(status.get("parts") == len(spec["names"]) for spec, status in notes_there.values())
        and state["ledger"] == sorted(notes_there)
    )


def play(seed: int, faults: Faults) -> list[str]:
    """What was wrong with a seed's run under faults, held against the run without."""
    plain, hard = run(seed, NONE), run(seed, faults)
    found = [f"without faults: {failure}" for failure in plain.failures] + hard.failures
    if not found and _timeless(hard.state) != _timeless(plain.state):
        found.append(f"ended as {hard.state}, without faults as {plain.state}")
    return found


def _timeless(state: dict[str, Any]) -> dict[str, Any]:
    """Without the count of generations: lost answers of users may have written twice."""
    found = dict(state)
    for kind in ("sites", "notes"):
        found[kind] = {
            name: (spec, {key: value for key, value in status.items() if key != "observedGeneration"})
            for name, (spec, status) in state[kind].items()
        }
    return found
