"""Flags that every operator has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiphys_component.options import LogOptions, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """An operator."""

    kubeconfig: Path = flag("--kubeconfig", help="how to reach the API server")
    namespace: str = flag("--namespace", default="", help="namespace whose objects are looked after; empty for all")
    workers: int = flag("--workers", default=2, help="objects of a kind that are worked on at once")
    install_definitions: bool = flag(
        "--install-definitions", default=True, help="bring the definitions of the operator's own kinds up to date"
    )
    leader_elect: bool = flag("--leader-elect", default=True, help="one of several processes works, the others wait")
    leader_elect_namespace: str = flag(
        "--leader-elect-resource-namespace", default="default", help="namespace of the Lease"
    )
    leader_elect_identity: str = flag(
        "--leader-elect-identity", default="", help="this process; a name of its own if empty"
    )
    bind_address: str = flag("--bind-address", default="127.0.0.1", help="address of metrics and health")
    healthz_port: int = flag("--healthz-port", default=0, help="port of metrics and health; 0 for none")
