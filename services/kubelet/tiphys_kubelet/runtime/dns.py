"""The resolver configuration of pods, and the hosts file. Pure but for reading the node's own resolv.conf.

Source: the documented DNS policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.cri.v1 import api_pb2 as cri

# Limits of resolvers that Kubernetes keeps to.
MAX_SERVERS = 3
MAX_SEARCHES = 32
HOSTS_HEADER = "# Kubernetes-managed hosts file.\n"
HOST_NETWORK_HEADER = "# Kubernetes-managed hosts file (host network).\n"


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """What the cluster gives: addresses of its DNS service, its domain, and the node's own resolver."""

    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    node: cri.DNSConfig = field(default_factory=cri.DNSConfig)


def parse_resolv_conf(text: str) -> cri.DNSConfig:
    """Servers, searches and options of a resolv.conf; the last search line counts."""
    config = cri.DNSConfig()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            config.servers.append(words[1])
        elif words[0] in ("search", "domain"):
            del config.searches[:]
            config.searches.extend(word.rstrip(".") or "." for word in words[1:])
        elif words[0] == "options":
            config.options.extend(words[1:])
    return config


def read_resolv_conf(path: Path) -> cri.DNSConfig:
    """The node's resolver; empty if there is no such file."""
    try:
        return parse_resolv_conf(path.read_text())
    except FileNotFoundError:
        return cri.DNSConfig()


def dns_config(pod: Pod, settings: DnsSettings) -> cri.DNSConfig:
    """What goes into the pod's resolv.conf."""
    config = _by_policy(pod, settings)
    extra = pod.spec.dnsConfig
    servers = _unique([*config.servers, *extra.nameservers])[:MAX_SERVERS]
    searches = _unique([*config.searches, *extra.searches])[:MAX_SEARCHES]
    options = _merge_options(config.options, {o.name: o.value for o in extra.options})
    return cri.DNSConfig(servers=servers, searches=searches, options=options)


def _by_policy(pod: Pod, settings: DnsSettings) -> cri.DNSConfig:
    policy = pod.spec.dnsPolicy or "ClusterFirst"
    if policy == "None":
        return cri.DNSConfig()
    cluster_first = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.hostNetwork)
    if not cluster_first or not settings.cluster_dns:
        return settings.node
    domain = settings.cluster_domain
    own = [f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain] if domain else []
    return cri.DNSConfig(servers=settings.cluster_dns, searches=[*own, *settings.node.searches], options=["ndots:5"])


def _unique(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _merge_options(given: Sequence[str], extra: Mapping[str, str]) -> list[str]:
    merged = {option.partition(":")[0]: option.partition(":")[2] for option in given}
    merged.update(extra)
    return [f"{name}:{value}" if value else name for name, value in merged.items()]


def pod_hostname(pod: Pod) -> str:
    """The name that the pod sees as its own, at most 63 characters."""
    if pod.spec.hostnameOverride:
        return pod.spec.hostnameOverride
    return (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")


def pod_domain(pod: Pod, cluster_domain: str) -> str:
    """The domain of the pod's name, empty without a subdomain."""
    if not pod.spec.subdomain:
        return ""
    return f"{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}"


def hosts_file(pod: Pod, ips: Sequence[str], cluster_domain: str, node_hosts: str) -> str:
    """The pod's /etc/hosts; with the node's network the node's own file."""
    if pod.spec.hostNetwork:
        text = HOST_NETWORK_HEADER + node_hosts
    else:
        text = HOSTS_HEADER + (
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
            "fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        )
        name, domain = pod_hostname(pod), pod_domain(pod, cluster_domain)
        names = f"{name}.{domain}\t{name}" if domain else name
        text += "".join(f"{ip}\t{names}\n" for ip in ips)
    if pod.spec.hostAliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{alias.ip}\t{chr(9).join(alias.hostnames)}\n" for alias in pod.spec.hostAliases)
    return text
