"""Aggregated roles and mirrored Endpoints on the real API server, under the rights that the bootstrap roles give."""

from __future__ import annotations

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_controllers import listed
from tiphys.api.core.v1 import endpoints_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys.api.rbac.v1 import rbac_pb2
from tiphys_controller_manager.controllers.endpointslice_mirroring.plan import MANAGER


async def test_B36_a_new_labelled_role_shows_in_view_edit_and_admin(cluster: Cluster) -> None:
    made = rbac_pb2.ClusterRole()
    made.metadata.name = "see-rings"
    made.metadata.labels["rbac.authorization.k8s.io/aggregate-to-view"] = "true"
    made.rules.add(verbs=["get"], apiGroups=["example.com"], resources=["rings"])
    await cluster.client.create(made)

    async def is_everywhere() -> bool:
        found = [await cluster.client.get(rbac_pb2.ClusterRole, name) for name in ("view", "edit", "admin")]
        return all(any("rings" in rule.resources for rule in role.rules) for role in found)

    await cluster.until(is_everywhere)
    before = await cluster.client.get(rbac_pb2.ClusterRole, "admin")
    assert any("pods" in rule.resources for rule in before.rules)


async def test_B28_endpoints_written_by_hand_become_a_slice_and_take_it_along(cluster: Cluster) -> None:
    service = service_pb2.Service()
    service.metadata.name, service.metadata.namespace = "db", "default"
    service.spec.ports.add(port=80)
    await cluster.client.create(service)
    written = endpoints_pb2.Endpoints()
    written.metadata.name, written.metadata.namespace = "db", "default"
    subset = written.subsets.add()
    subset.addresses.add(ip="10.9.9.9")
    subset.ports.add(port=5432)
    await cluster.client.create(written)

    async def mirrored() -> list[str]:
        slices = await listed(cluster, discovery_pb2.EndpointSlice)
        return [
            endpoint.addresses[0]
            for item in slices
            for endpoint in item.endpoints
            if item.metadata.labels["endpointslice.kubernetes.io/managed-by"] == MANAGER
        ]

    assert await cluster.until(mirrored) == ["10.9.9.9"]
    await cluster.client.delete(endpoints_pb2.Endpoints, "db", "default")

    async def is_gone() -> bool:
        return not await mirrored()

    await cluster.until(is_gone)
