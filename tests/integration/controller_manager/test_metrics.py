"""What a scrape of the manager finds: upstream's families, with the facts of what has happened."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.controller_manager.conftest import cluster_of
from tests.integration.controller_manager.test_jobs import Job, job, run_to
from tests.integration.controller_manager.test_manager import free_ports
from tests.support.apiserver import running_server
from tests.unit.controller_manager.harness import options
from tiphys.api.core.v1 import node_pb2, service_pb2
from tiphys_controller_manager.registry import controllers

# Without the _total of counters. Families with labels are told of once they have counted something, as upstream does.
FAMILIES = {
    "cronjob_controller_job_creation_skew_duration_seconds",
    "endpoint_slice_controller_changes",
    "endpoint_slice_controller_endpoints_added_per_sync",
    "endpoint_slice_controller_endpoints_removed_per_sync",
    "endpoint_slice_controller_endpointslices_changed_per_sync",
    "endpoint_slice_controller_syncs",
    "ephemeral_volume_controller_create",
    "ephemeral_volume_controller_create_failures",
    "job_controller_job_pods_creation",
    "job_controller_job_pods_finished",
    "job_controller_job_sync_duration_seconds",
    "job_controller_job_syncs",
    "job_controller_jobs_finished",
    "job_controller_terminated_pods_tracking_finalizer",
    "leader_election_master_status",
    "node_collector_update_node_health_duration_seconds",
    "node_collector_zone_health",
    "node_collector_zone_size",
    "node_collector_unhealthy_nodes_in_zone",
    "root_ca_cert_publisher_sync",
    "root_ca_cert_publisher_sync_duration_seconds",
    "running_managed_controllers",
    "taint_eviction_controller_pod_deletion_duration_seconds",
    "taint_eviction_controller_pod_deletions",
    "ttl_after_finished_controller_job_deletion_duration_seconds",
    "workqueue_adds",
    "workqueue_depth",
    "workqueue_longest_running_processor_seconds",
    "workqueue_queue_duration_seconds",
    "workqueue_retries",
    "workqueue_unfinished_work_seconds",
    "workqueue_work_duration_seconds",
}


async def test_a_scrape_finds_upstreams_families_and_what_has_happened() -> None:
    ports = free_ports()
    async with (
        running_server() as server,
        cluster_of(server, ports=ports) as cluster,
        aiohttp.ClientSession(f"http://127.0.0.1:{ports[0]}") as http,
    ):
        node = node_pb2.Node()
        node.metadata.name = "n1"
        await cluster.client.create(node)
        service = service_pb2.Service()
        service.metadata.name, service.metadata.namespace = "web", "default"
        service.spec.selector["app"] = "web"
        service.spec.ports.add(port=80)
        await cluster.client.create(service)
        await cluster.client.create(job("j", completions=2, parallelism=2))
        done: Job = await run_to(cluster, "j", "Complete")
        assert done.status.succeeded == 2
        text = await (await http.get("/metrics")).text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert not FAMILIES - families.keys()
    (ended,) = [one for one in families["job_controller_jobs_finished"].samples if one.value]
    assert ended.labels == {"completion_mode": "NonIndexed", "result": "succeeded", "reason": "CompletionsReached"}
    (leads,) = families["leader_election_master_status"].samples
    assert (leads.labels, leads.value) == ({"name": "kube-controller-manager"}, 1)
    running = {one.labels["name"] for one in families["running_managed_controllers"].samples if one.value}
    on = {spec.name for spec in controllers(options()) if spec.on_by_default}
    assert running == on
    waits = {one.labels["name"] for one in families["workqueue_depth"].samples}
    assert waits == on
