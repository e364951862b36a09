"""The flags of the controller manager, by Kubernetes' names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiphys_component.options import flag
from tiphys_component.serving import ServingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(ServingOptions):
    """Run the controllers of a cluster."""

    kubeconfig: Path = flag("--kubeconfig", help="how to reach the API server")
    bind_address: str = flag("--bind-address", default="127.0.0.1", help="address of both listeners")
    secure_port: int = flag("--secure-port", default=10257, help="port of metrics and health; 0 lets the system choose")
    grpc_port: int = flag(
        "--grpc-port", default=10267, help="port of ControllerManagerService; 0 lets the system choose"
    )
    controllers: tuple[str, ...] = flag(
        "--controllers", default=("*",), help="names to run; '*' is all that are on by default, '-name' is not that one"
    )
    leader_elect: bool = flag("--leader-elect", default=True, help="run only while holding the Lease")
    leader_elect_identity: str = flag(
        "--leader-elect-identity",
        default="",
        help="name to hold the Lease by; a process that is started again under its name need not wait for the Lease to "
        "run out, so no two at once may have it; a new one each start when not given",
    )
    leader_elect_lease_duration_s: float = flag(
        "--leader-elect-lease-duration", default=15.0, duration=True, help="how long a lost leader is waited for"
    )
    leader_elect_renew_deadline_s: float = flag(
        "--leader-elect-renew-deadline", default=10.0, duration=True, help="how long a leader tries to renew"
    )
    leader_elect_retry_period_s: float = flag(
        "--leader-elect-retry-period", default=2.0, duration=True, help="pause between tries"
    )
    leader_elect_resource_name: str = flag(
        "--leader-elect-resource-name", default="kube-controller-manager", help="name of the Lease"
    )
    leader_elect_resource_namespace: str = flag(
        "--leader-elect-resource-namespace", default="kube-system", help="namespace of the Lease"
    )
    allocate_node_cidrs: bool = flag(
        "--allocate-node-cidrs", default=True, help="give each node a range of pod addresses"
    )
    cluster_cidr: tuple[str, ...] = flag("--cluster-cidr", default=(), help="ranges of pod addresses, one a family")
    node_cidr_mask_size_ipv4: int = flag(
        "--node-cidr-mask-size-ipv4", "--node-cidr-mask-size", default=24, help="mask of a node's IPv4 range"
    )
    node_cidr_mask_size_ipv6: int = flag("--node-cidr-mask-size-ipv6", default=64, help="mask of a node's IPv6 range")
    service_cluster_ip_range: tuple[str, ...] = flag(
        "--service-cluster-ip-range", default=(), help="ranges of service addresses, never given to nodes"
    )
    root_ca_file: Path | None = flag(
        "--root-ca-file", default=None, help="certificates for kube-root-ca.crt; the kubeconfig's authority without"
    )
    cluster_signing_cert_file: Path | None = flag(
        "--cluster-signing-cert-file", default=None, help="certificate of the authority that signs requests"
    )
    cluster_signing_key_file: Path | None = flag(
        "--cluster-signing-key-file", default=None, help="key of that authority; without it nothing is signed"
    )
    cluster_signing_duration_s: float = flag(
        "--cluster-signing-duration", default=8760 * 3600.0, duration=True, help="longest life of what is signed"
    )
    node_monitor_grace_period_s: float = flag(
        "--node-monitor-grace-period", default=50.0, duration=True, help="silence after which a node counts as lost"
    )
    node_startup_grace_period_s: float = flag(
        "--node-startup-grace-period", default=60.0, duration=True, help="the same for a node that never spoke"
    )
    node_eviction_rate: float = flag(
        "--node-eviction-rate", default=0.1, help="nodes a second of a healthy zone whose pods are evicted"
    )
    secondary_node_eviction_rate: float = flag(
        "--secondary-node-eviction-rate", default=0.01, help="the same in a zone where many nodes are lost"
    )
    unhealthy_zone_threshold: float = flag(
        "--unhealthy-zone-threshold", default=0.55, help="share of lost nodes that makes a zone unhealthy"
    )
    large_cluster_size_threshold: int = flag(
        "--large-cluster-size-threshold", default=50, help="an unhealthy zone of no more nodes evicts nothing"
    )
    terminated_pod_gc_threshold: int = flag(
        "--terminated-pod-gc-threshold", default=12500, help="how many finished pods are kept; 0 keeps all"
    )
    max_endpoints_per_slice: int = flag(
        "--max-endpoints-per-slice", default=100, help="most endpoints of one EndpointSlice"
    )
    mirroring_max_endpoints_per_subset: int = flag(
        "--mirroring-max-endpoints-per-subset", default=1000, help="most addresses of one subset that are mirrored"
    )
    mirroring_concurrent_service_endpoint_syncs: int = flag(
        "--mirroring-concurrent-service-endpoint-syncs", default=5, help="Endpoints mirrored at once"
    )
    concurrent_deployment_syncs: int = flag(
        "--concurrent-deployment-syncs", default=5, help="deployments worked on at once"
    )
    concurrent_replicaset_syncs: int = flag(
        "--concurrent-replicaset-syncs", default=5, help="replica sets worked on at once"
    )
    concurrent_rc_syncs: int = flag(
        "--concurrent-rc-syncs", default=5, help="replication controllers worked on at once"
    )
    concurrent_statefulset_syncs: int = flag(
        "--concurrent-statefulset-syncs", default=5, help="stateful sets worked on at once"
    )
    concurrent_daemonset_syncs: int = flag(
        "--concurrent-daemonset-syncs", default=2, help="daemon sets worked on at once"
    )
    concurrent_job_syncs: int = flag("--concurrent-job-syncs", default=5, help="jobs worked on at once")
    concurrent_cron_job_syncs: int = flag("--concurrent-cron-job-syncs", default=5, help="cron jobs worked on at once")
    concurrent_ttl_after_finished_syncs: int = flag(
        "--concurrent-ttl-after-finished-syncs", default=5, help="finished jobs looked at at once"
    )
    concurrent_service_endpoint_syncs: int = flag(
        "--concurrent-service-endpoint-syncs",
        "--concurrent-endpoint-syncs",
        default=5,
        help="services worked on at once",
    )
    concurrent_namespace_syncs: int = flag(
        "--concurrent-namespace-syncs", default=10, help="namespaces emptied at once"
    )
    horizontal_pod_autoscaler_sync_period_s: float = flag(
        "--horizontal-pod-autoscaler-sync-period", default=15.0, duration=True, help="how often autoscalers look"
    )
    horizontal_pod_autoscaler_downscale_stabilization_s: float = flag(
        "--horizontal-pod-autoscaler-downscale-stabilization",
        default=300.0,
        duration=True,
        help="how long a wish for more pods keeps an autoscaler from going below it",
    )
    horizontal_pod_autoscaler_tolerance: float = flag(
        "--horizontal-pod-autoscaler-tolerance",
        default=0.1,
        help="part by which a measure may differ from its target before anything is scaled",
    )
    horizontal_pod_autoscaler_cpu_initialization_period_s: float = flag(
        "--horizontal-pod-autoscaler-cpu-initialization-period",
        default=300.0,
        duration=True,
        help="time after a pod's start in which its use of processors counts only while it is ready",
    )
    horizontal_pod_autoscaler_initial_readiness_delay_s: float = flag(
        "--horizontal-pod-autoscaler-initial-readiness-delay",
        default=30.0,
        duration=True,
        help="time after a pod's start in which changes of readiness count as its start",
    )
    concurrent_horizontal_pod_autoscaler_syncs: int = flag(
        "--concurrent-horizontal-pod-autoscaler-syncs", default=5, help="autoscalers worked on at once"
    )
    concurrent_gc_syncs: int = flag("--concurrent-gc-syncs", default=20, help="objects collected at once")
