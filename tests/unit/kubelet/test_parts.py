"""Small pure parts: DNS, resources, security, sandboxes, nodes, patches, log files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.kubelet.builders import NOW, make_pod
from tiphys.api.core.v1.container_pb2 import Probe
from tiphys.api.core.v1.node_pb2 import NodeStatus
from tiphys.api.core.v1.pod_pb2 import PodStatus
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_kubelet.machine import Machine
from tiphys_kubelet.node_status import NodeFacts, NodeIdentity, make_node, make_status, runtime_trouble, status_change
from tiphys_kubelet.options import parse_taint
from tiphys_kubelet.pleg import termination_message
from tiphys_kubelet.pod_spec import qos_class
from tiphys_kubelet.probes.manager import Threshold, first_verdict
from tiphys_kubelet.runtime.dns import DnsSettings, dns_config, hosts_file, parse_resolv_conf, pod_hostname
from tiphys_kubelet.runtime.resources import container_resources, cpu_quota, cpu_shares, oom_score_adj
from tiphys_kubelet.runtime.sandbox_config import SandboxSettings, sandbox_config
from tiphys_kubelet.runtime.security import container_security
from tiphys_kubelet.server.log_file import LogFormatter, LogOptions, parse_time, tail_offset
from tiphys_kubelet.status_manager import status_patch

NODE_DNS = parse_resolv_conf("# x\nnameserver 1.1.1.1\nsearch corp.example\noptions ndots:1\n")
DNS = DnsSettings(("10.96.0.10",), "cluster.local", NODE_DNS)


@pytest.mark.parametrize(
    ("policy", "host", "servers", "first_search", "options"),
    [
        ("ClusterFirst", False, ["10.96.0.10"], "default.svc.cluster.local", ["ndots:5"]),
        ("ClusterFirst", True, ["1.1.1.1"], "corp.example", ["ndots:1"]),
        ("ClusterFirstWithHostNet", True, ["10.96.0.10"], "default.svc.cluster.local", ["ndots:5"]),
        ("Default", False, ["1.1.1.1"], "corp.example", ["ndots:1"]),
        ("None", False, [], "", []),
    ],
)
def test_dns_policies(policy: str, host: bool, servers: list[str], first_search: str, options: list[str]) -> None:
    config = dns_config(make_pod("app", dnsPolicy=policy, hostNetwork=host), DNS)
    assert list(config.servers) == servers
    assert (config.searches[0] if config.searches else "") == first_search
    assert list(config.options) == options


def test_dns_config_of_the_pod_is_merged() -> None:
    pod = make_pod("app")
    pod.spec.dnsConfig.nameservers.append("9.9.9.9")
    pod.spec.dnsConfig.options.add(name="ndots", value="2")
    pod.spec.dnsConfig.options.add(name="edns0")
    config = dns_config(pod, DNS)
    assert list(config.servers) == ["10.96.0.10", "9.9.9.9"]
    assert list(config.options) == ["ndots:2", "edns0"]


def test_hosts_file_has_the_pod_and_its_aliases() -> None:
    pod = make_pod("app", hostname="h", subdomain="sub")
    pod.spec.hostAliases.add(ip="5.5.5.5", hostnames=["a", "b"])
    text = hosts_file(pod, ["10.0.0.1"], "cluster.local", "")
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "10.0.0.1\th.sub.default.svc.cluster.local\th\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n5.5.5.5\ta\tb\n")


def test_long_name_is_cut_to_a_hostname() -> None:
    pod = make_pod("app")
    pod.metadata.name = "a" * 62 + "-bcd"
    assert pod_hostname(pod) == "a" * 62


def test_sandbox_of_the_node_network_has_no_name_and_no_ports() -> None:
    pod = make_pod("app", hostNetwork=True)
    pod.spec.containers[0].ports.add(containerPort=80, hostPort=80)
    config = sandbox_config(pod, 2, SandboxSettings("/logs", DNS))
    assert (config.hostname, list(config.port_mappings), config.metadata.attempt) == ("", [], 2)
    assert config.linux.security_context.namespace_options.network == cri.NODE
    assert config.log_directory == "/logs/default_web_uid-1"


def test_host_ports_are_mapped() -> None:
    pod = make_pod("app")
    pod.spec.containers[0].ports.add(containerPort=80, hostPort=8080, protocol="UDP")
    (mapping,) = sandbox_config(pod, 0, SandboxSettings("/logs", DNS)).port_mappings
    assert (mapping.container_port, mapping.host_port, mapping.protocol) == (80, 8080, cri.UDP)


@pytest.mark.parametrize(("millis", "shares"), [(0, 2), (1, 2), (100, 102), (1000, 1024), (10**9, 262144)])
def test_cpu_shares(millis: int, shares: int) -> None:
    assert cpu_shares(millis) == shares


@pytest.mark.parametrize(("millis", "quota"), [(0, 0), (5, 1000), (500, 50_000), (2000, 200_000)])
def test_cpu_quota(millis: int, quota: int) -> None:
    assert cpu_quota(millis) == quota


def sized(requests: dict[str, str], limits: dict[str, str]) -> Any:
    """A pod of one container with these amounts."""
    pod = make_pod("app")
    for name, text in requests.items():
        pod.spec.containers[0].resources.requests[name].string = text
    for name, text in limits.items():
        pod.spec.containers[0].resources.limits[name].string = text
    return pod


@pytest.mark.parametrize(
    ("requests", "limits", "quality", "oom"),
    [
        ({}, {}, "BestEffort", 1000),
        ({"memory": "1Gi"}, {}, "Burstable", 750),
        ({"cpu": "1"}, {}, "Burstable", 999),
        ({}, {"cpu": "1", "memory": "1Gi"}, "Guaranteed", -997),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}, "Guaranteed", -997),
        ({"cpu": "500m"}, {"cpu": "1", "memory": "1Gi"}, "Burstable", 999),
    ],
    ids=["none", "memory-request", "cpu-request", "limits-only", "equal", "lower-request"],
)
def test_quality_of_service(requests: dict[str, str], limits: dict[str, str], quality: str, oom: int) -> None:
    pod = sized(requests, limits)
    assert qos_class(pod) == quality
    assert oom_score_adj(pod, pod.spec.containers[0], 4 << 30) == oom


def test_oom_score_is_left_alone_without_the_capability() -> None:
    pod = sized({}, {"memory": "64Mi", "cpu": "250m"})
    container = pod.spec.containers[0]
    made = container_resources(pod, container, memory_capacity_bytes=1 << 30, set_oom_score=False)
    assert (made.oom_score_adj, made.memory_limit_in_bytes, made.cpu_shares) == (0, 64 << 20, 256)


def test_security_of_the_container_wins_over_the_pods() -> None:
    pod = make_pod("app")
    pod.spec.securityContext.runAsUser, pod.spec.securityContext.fsGroup = 1000, 2000
    pod.spec.securityContext.supplementalGroups.append(3000)
    container = pod.spec.containers[0]
    container.securityContext.runAsUser = 5
    container.securityContext.readOnlyRootFilesystem = True
    container.securityContext.capabilities.add.append("NET_ADMIN")
    made = container_security(pod, container, groups=(4000,))
    assert made.run_as_user.value == 5
    assert list(made.supplemental_groups) == [3000, 2000, 4000]
    assert made.readonly_rootfs
    assert list(made.capabilities.add_capabilities) == ["NET_ADMIN"]
    assert "/proc/kcore" in made.masked_paths
    container.securityContext.privileged = True
    assert list(container_security(pod, container, groups=()).masked_paths) == []


MACHINE = Machine(2, 4 << 30, 100 << 30, "id", "uuid", "boot", "6.1", "Debian", "amd64")
IDENTITY = NodeIdentity("n1", ("198.18.1.1",), 10250, labels={"zone": "a"})


def test_node_is_registered_with_its_labels() -> None:
    labels = make_node(IDENTITY, MACHINE).metadata.labels
    assert (labels["kubernetes.io/hostname"], labels["kubernetes.io/arch"], labels["zone"]) == ("n1", "amd64", "a")


def test_node_status_holds_memory_back_and_tells_trouble() -> None:
    well = make_status(IDENTITY, NodeFacts(MACHINE, "containerd://1.6"), NodeStatus(), NOW)
    assert well.capacity["memory"].string == "4Gi"
    assert well.allocatable["memory"].string == "3996Mi"
    assert {c.type: c.status for c in well.conditions}["Ready"] == "True"
    ill = make_status(IDENTITY, NodeFacts(MACHINE, trouble=("no network",)), well, NOW + timedelta(seconds=9))
    ready = next(c for c in ill.conditions if c.type == "Ready")
    assert (ready.status, ready.reason, ready.message) == ("False", "KubeletNotReady", "no network")
    assert ready.lastTransitionTime.seconds == int(NOW.timestamp()) + 9


def test_heartbeat_alone_is_no_change_of_a_node() -> None:
    first = make_status(IDENTITY, NodeFacts(MACHINE), NodeStatus(), NOW)
    later = make_status(IDENTITY, NodeFacts(MACHINE), first, NOW + timedelta(seconds=60))
    assert status_change(first, later) == {}
    ill = make_status(IDENTITY, NodeFacts(MACHINE, trouble=("x",)), first, NOW)
    assert set(status_change(first, ill)) == {"conditions"}


def test_runtime_without_network_is_trouble() -> None:
    conditions = [
        cri.RuntimeCondition(type="RuntimeReady", status=True),
        cri.RuntimeCondition(type="NetworkReady", status=False, reason="NetworkPluginNotReady", message="no config"),
    ]
    assert runtime_trouble(cri.RuntimeStatus(conditions=conditions)) == [
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no config"
    ]


def test_patch_has_what_changed_and_says_what_is_gone() -> None:
    before = PodStatus(phase="Pending", message="m", podIP="1.1.1.1")
    before.podIPs.add(ip="1.1.1.1")
    before.conditions.add(type="Ready", status="False", reason="Why")
    before.conditions.add(type="Initialized", status="True")
    after = PodStatus(phase="Running", podIP="2.2.2.2")
    after.podIPs.add(ip="2.2.2.2")
    after.conditions.add(type="Ready", status="True")
    after.conditions.add(type="Initialized", status="True")
    patch = status_patch(before, after)
    assert patch["phase"] == "Running"
    assert patch["message"] is None
    assert patch["podIPs"] == [{"$patch": "replace"}, {"ip": "2.2.2.2"}]
    (condition,) = patch["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Ready", "True", None)
    assert status_patch(after, after) == {}


LOG = (
    b"2026-01-01T00:00:01.000000001Z stdout F one\n"
    b"2026-01-01T00:00:02.5Z stdout P tw\n"
    b"2026-01-01T00:00:02.6Z stdout F o\n"
    b"2026-01-01T00:00:03Z stderr F three\n"
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LogOptions(), b"one\ntwo\nthree\n"),
        (LogOptions(limit_bytes=5), b"one\nt"),
        (LogOptions(stream="Stderr"), b"three\n"),
        (LogOptions(since=datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)), b"three\n"),
        (LogOptions(timestamps=True, stream="Stderr"), b"2026-01-01T00:00:03Z three\n"),
    ],
    ids=["all", "limit", "stream", "since", "timestamps"],
)
@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_log_lines_are_formatted(options: LogOptions, expected: bytes, cut: int) -> None:
    formatter = LogFormatter(options)
    out = b"".join(formatter.feed(LOG[at : at + cut]) for at in range(0, len(LOG), cut))
    assert out == expected


def test_times_of_any_fraction_are_read() -> None:
    assert parse_time(b"2026-01-01T00:00:02.5Z") == datetime(2026, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)
    assert parse_time(b"2026-01-01T00:00:02.123456789+01:00").utcoffset() == timedelta(hours=1)
    assert parse_time(b"nonsense").year == 1970


@pytest.mark.parametrize(("lines", "rest"), [(0, b""), (1, b"c\n"), (2, b"b\nc\n"), (9, b"a\nb\nc\n")])
def test_tail_begins_at_the_right_line(tmp_path: Path, lines: int, rest: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\nb\nc\n")
    assert path.read_bytes()[tail_offset(path, lines) :] == rest


def test_tail_of_a_long_file_crosses_blocks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%07d\n" % n for n in range(50_000)))
    assert path.read_bytes()[tail_offset(path, 20_000) :].startswith(b"0030000\n")


def test_D41_termination_message_falls_back_to_the_log(tmp_path: Path) -> None:
    message, log = tmp_path / "message", tmp_path / "0.log"
    log.write_bytes(LOG)
    message.touch()
    assert termination_message(str(message), "") == ""
    assert termination_message(str(message), str(log)) == "one\ntw\no\nthree"
    message.write_text("x" * 5000)
    assert termination_message(str(message), str(log)) == "x" * 4096
    assert termination_message("/no/such", "") == ""


def test_threshold_needs_so_many_in_a_row() -> None:
    threshold = Threshold(Probe(failureThreshold=2, successThreshold=2), verdict=True)
    assert [threshold.take(ok) for ok in (False, True, False, False, False, True, True)] == [
        False, False, False, True, False, False, True
    ]  # fmt: skip


def test_reported_readiness_holds_over_a_restart_of_the_kubelet() -> None:
    pod = make_pod("app")
    container = pod.spec.containers[0]
    container.readinessProbe.periodSeconds = 1
    assert not first_verdict(pod, container, "id-1").ready
    pod.status.containerStatuses.add(name="app", containerID="containerd://id-1", ready=True, started=True)
    assert first_verdict(pod, container, "id-1").ready
    assert not first_verdict(pod, container, "id-2").ready


def test_taints_are_read() -> None:
    taint = parse_taint("dedicated=gpu:NoSchedule")
    assert (taint.key, taint.value, taint.effect) == ("dedicated", "gpu", "NoSchedule")
    with pytest.raises(ValueError, match="must be key=value:effect"):
        parse_taint("dedicated=gpu")
