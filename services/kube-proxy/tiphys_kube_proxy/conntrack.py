"""Forgets UDP flows that lead to endpoints which are gone: the kernel would keep sending them there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tiphys_component.log import get_logger
from tiphys_component.proc import CommandError, run_command
from tiphys_kube_proxy.service_map import ServicePort

_log = get_logger("kube-proxy.conntrack")
_TIMEOUT_S = 10.0
_NOTHING_DELETED = "0 flow entries have been deleted"


@dataclass(frozen=True, slots=True)
class Flow:
    """Flows to forget: what was asked for, and the endpoint that answered; empty means any."""

    address: str
    port: int
    endpoint: str = ""


def stale_flows(before: Iterable[ServicePort], after: Iterable[ServicePort]) -> Iterator[Flow]:
    """UDP flows that a change makes stale: to endpoints that left, and to services that had none before. Pure."""
    now = {p.key: p for p in after if p.protocol == "udp"}
    old = {p.key: p for p in before if p.protocol == "udp"}
    for key, port in old.items():
        kept = now[key].endpoints.cluster if key in now else ()
        for endpoint in port.endpoints.cluster:
            if endpoint not in kept:
                for address in (*port.cluster_ips, *port.external_ips):
                    yield Flow(address, port.port, endpoint.address)
    for key, port in now.items():
        first = key not in old or not old[key].endpoints.cluster
        if first and port.endpoints.cluster:
            for address in (*port.cluster_ips, *port.external_ips):
                yield Flow(address, port.port)


async def forget(flows: Iterable[Flow]) -> None:
    """Deletes the flows; a failure is logged, as flows also end by themselves."""
    for flow in flows:
        command = ["conntrack", "-D", "-p", "udp", "--orig-dst", flow.address, "--dport", str(flow.port)]
        if flow.endpoint:
            command += ["--dst-nat", flow.endpoint]
        try:
            done = await run_command(command, timeout_s=_TIMEOUT_S, check=False)
        except CommandError as err:
            _log.warning("stale UDP flows stay until they end", err=str(err))
            return
        said = done.stderr.decode(errors="replace")
        if done.returncode != 0 and _NOTHING_DELETED not in said:
            _log.warning("stale UDP flow stays until it ends", address=flow.address, err=said.strip())
