"""The documents in which use is told."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from tiphys_kubelet.stats.exposition import cadvisor_metrics, resource_metrics
from tiphys_kubelet.stats.readings import ContainerReading, Rate, Reading, Sample, Usage
from tiphys_kubelet.stats.summary import summary

S = 1_000_000_000
READING = Reading(100 * S, 30 * S, 1000, 2000, 500)
APP = ContainerReading("c1", "u", "default", "web", "app", READING, image='odd"name', started_ns=50 * S, disk_bytes=7)
SAMPLE = Sample(0.0, [APP], {"u": Reading(100 * S, 31 * S, 1100)}, Reading(100 * S, 90 * S, 5000))
STARTED = datetime(2026, 1, 1, tzinfo=UTC)


def values(text: bytes) -> dict[str, list[tuple[dict[str, str], float, float | None]]]:
    """Samples by metric, as Prometheus reads them."""
    found: dict[str, list[tuple[dict[str, str], float, float | None]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for one in family.samples:
            found.setdefault(one.name, []).append((one.labels, one.value, one.timestamp))  # type: ignore[arg-type]  # a float, or None
    return found


def test_resource_metrics_have_upstream_names_labels_and_times() -> None:
    found = values(resource_metrics(SAMPLE))
    container = {"container": "app", "namespace": "default", "pod": "web"}
    assert found["container_cpu_usage_seconds_total"] == [(container, 30.0, 100.0)]
    assert found["container_memory_working_set_bytes"] == [(container, 1000.0, 100.0)]
    assert found["container_start_time_seconds"] == [(container, 50.0, 100.0)]
    assert found["pod_cpu_usage_seconds_total"] == [({"namespace": "default", "pod": "web"}, 31.0, 100.0)]
    assert found["pod_memory_working_set_bytes"] == [({"namespace": "default", "pod": "web"}, 1100.0, 100.0)]
    assert found["node_cpu_usage_seconds_total"] == [({}, 90.0, 100.0)]
    assert found["node_memory_working_set_bytes"] == [({}, 5000.0, 100.0)]
    assert found["resource_scrape_error"] == [({}, 0.0, None)]


def test_failed_scrape_says_so() -> None:
    found = values(resource_metrics(Sample(0.0, failed=True)))
    assert found["resource_scrape_error"] == [({}, 1.0, None)]
    assert "container_cpu_usage_seconds_total" not in found


def test_J1_cadvisor_metrics_name_container_and_image() -> None:
    found = values(cadvisor_metrics(SAMPLE))
    (cpu,) = found["container_cpu_usage_seconds_total"]
    assert cpu[0]["cpu"] == "total"
    assert (cpu[0]["image"], cpu[0]["id"], cpu[1]) == ('odd"name', "c1", 30.0)
    assert found["container_memory_working_set_bytes"][0][1] == 1000.0


def test_summary_has_counters_and_rates() -> None:
    usage = Usage(SAMPLE, {"c1": Rate(250_000_000, 15.0)}, {"u": Rate(260_000_000, 15.0)}, None)
    document = summary("n1", usage, STARTED)
    node, (pod,) = document["node"], document["pods"]
    assert node["nodeName"] == "n1"
    assert node["cpu"] == {"time": "1970-01-01T00:01:40Z", "usageCoreNanoSeconds": 90 * S}
    assert node["memory"]["workingSetBytes"] == 5000
    assert pod["podRef"] == {"name": "web", "namespace": "default", "uid": "u"}
    assert pod["startTime"] == "1970-01-01T00:00:50Z"
    assert pod["cpu"]["usageNanoCores"] == 260_000_000
    (container,) = pod["containers"]
    assert container["cpu"] == {
        "time": "1970-01-01T00:01:40Z",
        "usageCoreNanoSeconds": 30 * S,
        "usageNanoCores": 250_000_000,
        "windowSeconds": 15.0,
    }
    assert container["rootfs"]["usedBytes"] == 7
