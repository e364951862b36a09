"""The configuration of a pod's sandbox. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_kubelet.runtime import labels
from tiphys_kubelet.runtime.dns import DnsSettings, dns_config, pod_domain, pod_hostname
from tiphys_kubelet.runtime.security import sandbox_security

_PROTOCOLS = {"": cri.TCP, "TCP": cri.TCP, "UDP": cri.UDP, "SCTP": cri.SCTP}


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What the node adds: where logs go, DNS, and the cgroup above the pod's ("" leaves it to the runtime)."""

    log_root: str
    dns: DnsSettings
    cgroup_parent: str = ""


def sandbox_config(pod: Pod, attempt: int, settings: SandboxSettings) -> cri.PodSandboxConfig:
    """What RunPodSandbox is asked for, and CreateContainer again."""
    meta = pod.metadata
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=meta.name, uid=meta.uid, namespace=meta.namespace, attempt=attempt),
        log_directory=labels.log_directory(settings.log_root, pod),
        dns_config=dns_config(pod, settings.dns),
        labels=labels.pod_labels(pod),
        annotations=dict(meta.annotations),
    )
    if not pod.spec.hostNetwork:
        # With the node's network the runtime demands that the name be left to the node.
        config.hostname = _hostname(pod, settings.dns.cluster_domain)
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        for port in container.ports:
            if port.hostPort and not pod.spec.hostNetwork:
                config.port_mappings.add(
                    protocol=_PROTOCOLS[port.protocol],
                    container_port=port.containerPort,
                    host_port=port.hostPort,
                    host_ip=port.hostIP,
                )
    config.linux.security_context.CopyFrom(sandbox_security(pod))
    config.linux.cgroup_parent = settings.cgroup_parent
    for sysctl in pod.spec.securityContext.sysctls:
        config.linux.sysctls[sysctl.name] = sysctl.value
    return config


def _hostname(pod: Pod, cluster_domain: str) -> str:
    name, domain = pod_hostname(pod), pod_domain(pod, cluster_domain)
    if pod.spec.setHostnameAsFQDN and domain:
        return f"{name}.{domain}"
    return name
