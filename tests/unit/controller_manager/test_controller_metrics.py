"""What controllers count, in upstream's names and labels."""

from __future__ import annotations

from tests.unit.controller_manager.controllers.jobs import JOB, end, end_all, job, running, submit
from tests.unit.controller_manager.controllers.test_nodes import EVICTION, LIFECYCLE, node, pod, say
from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1 import namespace_pb2, pod_pb2, service_pb2


def value(built: House, name: str, **labels: str) -> float | None:
    return built.parts.counted.registry.value(name, **labels)


async def test_a_job_is_counted_with_its_rounds_pods_and_end() -> None:
    async with house(JOB) as built:
        await submit(built, job(completions=3, parallelism=3))
        await end_all(built, 0)
        await built.settle()
        mode = {"completion_mode": "NonIndexed"}
        ended = {"result": "succeeded", **mode}
        assert value(built, "job_controller_jobs_finished_total", reason="CompletionsReached", **ended) == 1
        assert value(built, "job_controller_job_pods_finished_total", **ended) == 3
        assert value(built, "job_controller_job_syncs_total", action="pods_created", **ended) == 1
        assert value(built, "job_controller_job_sync_duration_seconds_count", action="pods_created", **ended) == 1
        assert value(built, "job_controller_job_pods_creation_total", reason="new", status="succeeded") == 3
        held = "job_controller_terminated_pods_tracking_finalizer_total"
        assert (value(built, held, event="add"), value(built, held, event="delete")) == (3, 3)


async def test_rules_and_lost_indexes_of_a_job_are_counted() -> None:
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    made = job(
        completions=2,
        parallelism=2,
        completionMode="Indexed",
        backoffLimitPerIndex=1,
        podFailurePolicy={"rules": [rule]},
    )
    async with house(JOB) as built:
        await submit(built, made)
        one, other = await running(built)
        await end(built, one, 42)
        await end(built, other)
        await built.run_for(60)
        assert value(built, "job_controller_pod_failures_handled_by_failure_policy_total", action="FailIndex") == 1
        for status in ("failed", "succeeded"):
            indexes = {"status": status, "backoffLimit": "perIndex"}
            assert value(built, "job_controller_job_finished_indexes_total", **indexes) == 1
        failed = {"completion_mode": "Indexed", "result": "failed", "reason": "FailedIndexes"}
        assert value(built, "job_controller_jobs_finished_total", **failed) == 1


async def test_a_job_of_another_controller_is_counted_as_such() -> None:
    async with house(JOB) as built:
        await submit(built, job(managedBy="example.com/jobs"))
        name = "job_controller_jobs_by_external_controller_total"
        assert value(built, name, controller_name="example.com/jobs") == 1
        assert not await built.pods()


async def test_zones_are_told_as_they_are_and_evictions_are_counted() -> None:
    async with house(LIFECYCLE, EVICTION) as built:
        for name in ("n1", "n2", "n3"):
            built.client.seed(node(name, zone="z"))
        built.client.seed(pod("p1", "n1"))
        await built.settle()
        zone = {"zone": ":\x00:z"}
        await say(built, "Unknown", "n1")
        await built.run_for(5)
        assert value(built, "node_collector_zone_size", **zone) == 3
        assert value(built, "node_collector_unhealthy_nodes_in_zone", **zone) == 1
        assert round(value(built, "node_collector_zone_health", **zone) or 0) == 67
        assert value(built, "node_collector_evictions_total", **zone) == 1
        assert (value(built, "node_collector_update_node_health_duration_seconds_count") or 0) >= 3
        assert value(built, "taint_eviction_controller_pod_deletions_total") == 1


async def test_changes_of_slices_are_counted_by_what_was_done() -> None:
    async with house("endpointslice-controller") as built:
        service = service_pb2.Service()
        service.metadata.name, service.metadata.namespace = "web", "default"
        service.spec.selector["app"] = "web"
        service.spec.ports.add(port=80).targetPort.intVal = 80
        service.spec.ipFamilies.append("IPv4")
        for number in (1, 2):
            built.client.seed(_backend(number))
        await built.client.create(service)
        await built.settle()
        prefix = "endpoint_slice_controller_"
        assert value(built, prefix + "changes", operation="create") == 1
        assert (value(built, prefix + "syncs", result="success") or 0) >= 1
        assert value(built, prefix + "endpoints_added_per_sync_sum") == 2
        gone = await built.client.get(pod_pb2.Pod, "b1", "default")
        await built.client.delete(pod_pb2.Pod, gone.metadata.name, "default", grace_period_s=0)
        await built.settle()
        assert value(built, prefix + "endpoints_removed_per_sync_sum") == 1
        changed = {"topology": "Disabled", "traffic_distribution": ""}
        assert value(built, prefix + "endpointslices_changed_per_sync_sum", **changed) == 2


def _backend(number: int) -> pod_pb2.Pod:
    made = pod(f"b{number}", "n1")
    made.metadata.labels["app"] = "web"
    made.status.podIP = f"10.0.0.{number}"
    made.status.podIPs.add(ip=made.status.podIP)
    return made


async def test_publishing_the_authority_is_counted_by_how_it_went() -> None:
    async with house("root-ca-certificate-publisher-controller", authority="PEM") as built:
        made = namespace_pb2.Namespace()
        made.metadata.name = "n"
        await built.client.create(made)
        await built.settle()
        assert (value(built, "root_ca_cert_publisher_sync_total", code="200") or 0) >= 1
