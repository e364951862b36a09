"""Flags of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiphys_component.options import flag
from tiphys_component.serving import ServingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(ServingOptions):
    """kube-scheduler: places pods on nodes."""

    kubeconfig: Path = flag("--kubeconfig", help="how to reach the API server")
    bind_address: str = flag("--bind-address", default="127.0.0.1", help="address of every port")
    secure_port: int = flag("--secure-port", default=10259, help="port of metrics and health")
    grpc_port: int = flag("--grpc-port", default=10269, help="port of the gRPC face")
    scheduler_name: str = flag(
        "--scheduler-name", default="default-scheduler", help="pods with this schedulerName are placed"
    )
    config: str = flag("--config", default="", help="file with a KubeSchedulerConfiguration")
    policy_config_file: str = flag(
        "--policy-config-file", default="", help="file with a Policy of the oldest API, instead of --config"
    )
    algorithm_provider: str = flag(
        "--algorithm-provider",
        default="",
        help="predicates and priorities by the name of the oldest API: DefaultProvider",
    )
    leader_elect: bool = flag("--leader-elect", default=True, help="work only while holding the Lease")
    leader_elect_identity: str = flag(
        "--leader-elect-identity",
        default="",
        help="name to hold the Lease by; a process that is started again under its name need not wait for the Lease to "
        "run out, so no two at once may have it; a new one each start when not given",
    )
