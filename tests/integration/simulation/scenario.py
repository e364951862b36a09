"""What happens to a cluster, drawn from a seed: the same deeds for the run without faults and for that with them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.integration.simulation.deeds import MACHINES, NAMESPACE, NODES, Step, named
from tests.integration.simulation.shapes.bounded import SLOT, SLOTS_OF_A_NODE
from tests.integration.simulation.shapes.table import SHAPES
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_cluster.testing.cluster import Cluster

_PAUSES_S = (0.0, 0.5, 5.0, 40.0)
_SHAPES_OF_A_SEED = 3
# Of so many deeds one is the machines'.
_A_MACHINE_IN = 8


def draw(seed: int, steps: int = 11, shapes: Sequence[str] = ()) -> list[Step]:
    """A scenario. Some shapes are made first, then changed, broken and deleted in any order."""
    rng = Random(f"scenario {seed}")
    chosen = shapes or rng.sample(list(SHAPES), _SHAPES_OF_A_SEED)
    drawn = [SHAPES[name](rng) for name in chosen]
    first = [deed for shape in drawn for deed in shape.first]
    changed = []
    for _ in range(steps):
        is_machines = rng.randrange(_A_MACHINE_IN) == 0
        changed.append(rng.choice(MACHINES if is_machines else rng.choice(drawn).later)(rng))
    last = [deed for shape in drawn for deed in shape.last]
    return [Step(rng.choice(_PAUSES_S), name, deed) for name, deed in (*first, *changed, *last)]


async def begin(cluster: Cluster) -> None:
    """Nodes, a service over all pods, and a quota that nothing reaches."""
    for number in range(NODES):
        await cluster.nodes.add(f"n{number}", labels={}, **{SLOT: str(SLOTS_OF_A_NODE)})
    service = named(Service, "all")
    service.spec.selector["part"] = "all"
    service.spec.ports.add(port=80)
    await cluster.client.create(service)
    quota = named(ResourceQuota, "pods", NAMESPACE)
    quota.spec.hard["pods"].string = "100"
    await cluster.client.create(quota)
    # Pods are refused until it is known how many there are.
    await cluster.clock.sleep(1)
