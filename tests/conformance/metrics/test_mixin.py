"""J5: Prometheus' own tool takes what our processes show, and finds every series that kubernetes-mixin's rules ask for.

The selectors are those of kubernetes-mixin (rules/kube_apiserver*, alerts/kube_apiserver, rules/kube_scheduler,
rules/kubelet, alerts/kubelet), each in an expression of ours. promtool evaluates them over what was scraped, as if
every minute had brought as much again.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.apiserver import RunningServer, running_server
from tests.unit.client.test_counted_transport import HOST, Road
from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import world
from tiphys.api.core.v1.pod_pb2 import Pod, PodStatus
from tiphys_client.counted_transport import CountedTransport
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component.certificates import CertificateAuthority, expires_at
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry
from tiphys_kubelet.server.certificate_metrics import CertificateMetrics
from tiphys_kubelet.server.metrics import KubeletMetrics

MAPS = "/api/v1/namespaces/default/configmaps"
MAP = {"metadata": {"name": "a"}}
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
ABSENT = {
    "metadata": {"name": "v1.absent.example.com"},
    "spec": {
        "group": "absent.example.com",
        "version": "v1",
        "service": {"name": "absent", "namespace": "default"},
        "groupPriorityMinimum": 10,
        "versionPriority": 10,
    },
}
# Every bound as promtool's own libraries write it, and as Python's do.
_READ, _NAMESPACE, _CLUSTER = r"1(\\.0)?", r"5(\\.0)?", r"30(\\.0)?"
_SLI = "apiserver_request_sli_duration_seconds"
API_SERVER = (
    'sum by (code, verb) (increase(apiserver_request_total{verb=~"LIST|GET|POST|PUT|PATCH|DELETE",code=~"2.."}[5m]))',
    'sum by (code, verb) (increase(apiserver_request_total{verb=~"LIST|GET",code=~"4.."}[5m]))',
    'sum by (code, resource) (rate(apiserver_request_total{verb=~"POST|PUT|PATCH|DELETE"}[5m]))',
    f"sum by (verb, scope, le) (increase({_SLI}_bucket[5m]))",
    f'sum(rate({_SLI}_count{{verb=~"LIST|GET",subresource!~"proxy|attach|log|exec|portforward"}}[5m]))',
    f'sum(rate({_SLI}_bucket{{verb=~"LIST|GET",scope=~"resource|",le=~"{_READ}"}}[5m]))',
    f'sum(rate({_SLI}_bucket{{verb=~"LIST|GET",scope="namespace",le=~"{_NAMESPACE}"}}[5m]))',
    f'sum(rate({_SLI}_bucket{{verb=~"LIST|GET",scope="cluster",le=~"{_CLUSTER}"}}[5m]))',
    f'sum(rate({_SLI}_bucket{{verb=~"POST|PUT|PATCH|DELETE",le=~"{_READ}"}}[5m]))',
    f"histogram_quantile(0.99, sum by (le, resource, verb) (rate({_SLI}_bucket[5m])))",
    "apiserver_client_certificate_expiration_seconds_count > 0",
    "histogram_quantile(0.01, sum by (le) (rate(apiserver_client_certificate_expiration_seconds_bucket[5m])))",
    "max by (name) (avg_over_time(aggregator_unavailable_apiservice[10m]))",
    'sum by (name) (increase(aggregator_unavailable_apiservice_total{reason!=""}[10m])) > 4',
    "apiserver_current_inflight_requests",
    "apiserver_watch_events_total",
    "histogram_quantile(0.99, sum by (le, operation) (rate(etcd_request_duration_seconds_bucket[5m])))",
    "rate(process_cpu_seconds_total[5m]) >= 0",
    "process_resident_memory_bytes > 0",
)
SCHEDULER = (
    *(
        f"histogram_quantile({quantile}, sum(rate({metric}_bucket[5m])) without (instance))"
        for quantile in (0.99, 0.9, 0.5)
        for metric in (
            "scheduler_scheduling_attempt_duration_seconds",
            "scheduler_scheduling_algorithm_duration_seconds",
            "scheduler_pod_scheduling_sli_duration_seconds",
        )
    ),
    'sum by (result) (rate(scheduler_schedule_attempts_total{result=~"scheduled|unschedulable"}[5m]))',
    'sum(rate(scheduler_pod_scheduling_sli_duration_seconds_count{attempts="1"}[5m])) > 0',
    "scheduler_pending_pods",
)
CLIENTS = (
    'sum(rate(rest_client_requests_total{code=~"2.."}[5m]))',
    'histogram_quantile(0.99, sum by (verb, le) (rate(rest_client_request_duration_seconds_bucket{verb="POST"}[5m])))',
    "sum by (name) (rate(workqueue_adds_total[5m]))",
    "sum by (name) (workqueue_depth)",
    "histogram_quantile(0.99, sum by (name, le) (rate(workqueue_queue_duration_seconds_bucket[5m])))",
)
KUBELET = (
    "histogram_quantile(0.99, sum by (instance, le) (rate(kubelet_pleg_relist_duration_seconds_bucket[5m]))"
    " * on (instance) group_left (node) kubelet_node_name)",
    "histogram_quantile(0.99, sum by (le) (rate(kubelet_pod_start_sli_duration_seconds_bucket[5m])))",
    "sum(kubelet_running_pods)",
    "sum(kubelet_running_containers)",
    "histogram_quantile(0.99, sum by (instance, le) (rate(kubelet_pod_worker_duration_seconds_bucket[5m])))",
    "kubelet_certificate_manager_client_ttl_seconds < 604800",
    "kubelet_certificate_manager_server_ttl_seconds < 86400",
    "increase(kubelet_certificate_manager_client_expiration_renew_errors[5m]) >= 0",
    "increase(kubelet_server_expiration_renew_errors[5m]) > 0",
)


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """What it says; nothing where all is well."""
    tool = shutil.which("promtool")
    assert tool is not None, "apt-get install prometheus"
    done = subprocess.run([tool, *arguments], input=given, capture_output=True, check=False, timeout=120)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def check(folder: Path, scraped: bytes, expressions: Sequence[str]) -> None:
    """Let promtool judge what was scraped, load the expressions as rules, and find a value for each."""
    assert promtool("check", "metrics", given=scraped) == ""
    records = [{"record": f"test:rule{number}", "expr": text} for number, text in enumerate(expressions)]
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "mixin", "interval": "1m", "rules": records}]}))
    assert f"SUCCESS: {len(expressions)} rules found" in promtool("check", "rules", rules)
    names = set(re.findall(r"[a-z_]+(?=[\[{ )]|$)", " ".join(expressions)))
    series = []
    for family in text_string_to_metric_families(scraped.decode()):
        for sample in family.samples:
            if sample.name in names:
                labels = {**sample.labels, "instance": "one"}
                text = ",".join(f"{name}={yaml_quoted(value)}" for name, value in labels.items())
                gained = 0 if family.type == "gauge" else sample.value
                series.append({"series": f"{sample.name}{{{text}}}", "values": f"{sample.value}+{gained}x15"})
    asked = [
        {
            "expr": f"count(test:rule{number}) > bool 0",
            "eval_time": "12m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for number in range(len(expressions))
    ]
    test = folder / "test.yaml"
    group = {"interval": "1m", "input_series": series, "promql_expr_test": asked}
    test.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [group]}))
    assert "SUCCESS" in promtool("test", "rules", test)


def yaml_quoted(text: str) -> str:
    """A label's value as PromQL writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


async def test_J5_no_series_of_the_api_server_is_missing(tmp_path: Path) -> None:
    async with running_server() as server:
        scraped = await scraped_from_busy(server)
    check(tmp_path, scraped, API_SERVER)


async def scraped_from_busy(server: RunningServer) -> bytes:
    """What a server shows that has answered this and that."""
    reader, writer = await server.connect()
    writer.write(f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    assert (await server.http("POST", MAPS, MAP)).status == 201
    assert b"ADDED" in await reader.readuntil(b"}\n")
    for path in (f"{MAPS}/a", f"{MAPS}/missing", MAPS, "/api/v1/pods"):
        await server.http("GET", path)
    assert (await server.http("POST", API_SERVICES, ABSENT)).status == 201
    scraped = b""
    while b'aggregator_unavailable_apiservice_total{name="v1.absent.example.com"' not in scraped:
        scraped = (await server.http("GET", "/metrics")).body
    writer.close()
    return scraped


async def test_J5_no_series_of_the_scheduler_is_missing(tmp_path: Path) -> None:
    async with world(node("n1", cpu="2")) as found:
        for name, cpu in (("a", "1"), ("large", "9")):
            await found.client.create(pod_message(name, cpu=cpu))
        await found.until(lambda: found.place_of("large") == "unschedulable" and found.node_of("a") == "n1")
        scraped = found.registry.render()
    check(tmp_path, scraped, SCHEDULER)


async def test_J5_no_series_of_clients_and_their_queues_is_missing(tmp_path: Path) -> None:
    clock, registry = FakeClock(), Registry()
    transport = CountedTransport(Road(clock), clock, host=HOST)
    transport.show_in(registry)
    await transport.unary("pods", "Create", b"")
    queue: RateLimitingQueue[str] = RateLimitingQueue(clock, metrics=WorkMetrics(registry, clock).for_queue("pods"))
    queue.add("a")
    queue.done(await queue.get())
    check(tmp_path, registry.render(), CLIENTS)


def test_J5_no_series_of_the_kubelet_is_missing(tmp_path: Path) -> None:
    metrics = KubeletMetrics("n1", pods=lambda: 1, containers=lambda: 2)
    metrics.relisted(0.02)
    pod = Pod()
    pod.metadata.creationTimestamp.seconds = 100
    pod.spec.containers.add(name="c")
    pod.status.phase = "Running"
    pod.status.containerStatuses.add(name="c").state.running.startedAt.seconds = 103
    metrics.status_written(pod, PodStatus(phase="Pending"))
    metrics.worked("create", 0.02)
    pair = CertificateAuthority.create("ours").issue("n1", client=True)
    pair.write(tmp_path / "n1.crt", tmp_path / "n1.key")
    soon = FakeClock(expires_at(pair.cert_pem) - timedelta(hours=1))
    told = CertificateMetrics(soon, client_pem=pair.cert_pem, server=tmp_path / "n1.crt")
    told.not_reloaded()
    told.show_in(metrics.registry)
    check(tmp_path, metrics.registry.render(), KUBELET)


def test_J5_a_series_that_is_missing_would_be_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="FAILED"):
        check(tmp_path, Registry(process_metrics=True).render(), ("sum(kubelet_running_pods)",))
