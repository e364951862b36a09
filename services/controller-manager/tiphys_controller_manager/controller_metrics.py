"""What controllers count, under the names and labels that upstream's dashboards ask for; made once a process.

Source: kubernetes pkg/controller/*/metrics, and k8s.io/endpointslice/metrics.
"""

from __future__ import annotations

from typing import Final

from tiphys_component.metrics import Registry

_FROM_1_MS: Final = tuple(0.001 * 2**step for step in range(15))
_FROM_1_S: Final = tuple(float(2**step) for step in range(10))
_COUNTS: Final = tuple(float(2**step) for step in range(15))
# From 5 ms to 4 minutes. Source: pkg/controller/tainteviction/metrics.
_DELETIONS: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0)
# Source: pkg/controller/ttlafterfinished/metrics: from 0.1 s, doubled.
_TTL: Final = tuple(0.1 * 2**step for step in range(14))


class ControllerMetrics:
    """All families, by the controller whose they are."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.job = JobMetrics(registry)
        self.autoscaler = AutoscalerMetrics(registry)
        self.slices = SliceMetrics(registry)
        self.nodes = NodeMetrics(registry)
        self.cron_job_skew = registry.histogram(
            "cronjob_controller_job_creation_skew_duration_seconds",
            "Time between the moment at which a CronJob was to run and the making of its Job",
            buckets=_FROM_1_S,
        )
        self.ttl_delay = registry.histogram(
            "ttl_after_finished_controller_job_deletion_duration_seconds",
            "Time between the moment at which a finished Job was to go and its deletion",
            buckets=_TTL,
        )
        self.root_ca_syncs = registry.counter(
            "root_ca_cert_publisher_sync_total", "Namespace syncs of the publisher", ("code",)
        )
        self.root_ca_seconds = registry.histogram(
            "root_ca_cert_publisher_sync_duration_seconds", "How long they took", ("code",), _FROM_1_MS
        )
        self.ephemeral_claims = registry.counter(
            "ephemeral_volume_controller_create_total", "Claims that were to be made for pods"
        )
        self.ephemeral_failures = registry.counter(
            "ephemeral_volume_controller_create_failures_total", "Those of them that could not be made"
        )
        self.pods_removed = registry.counter(
            "pod_gc_collector_force_delete_pods_total", "Pods deleted by force", ("namespace", "reason")
        )
        self.pods_not_removed = registry.counter(
            "pod_gc_collector_force_delete_pod_errors_total", "Such deletions that failed", ("namespace", "reason")
        )


class JobMetrics:
    """Source: pkg/controller/job/metrics/metrics.go."""

    def __init__(self, registry: Registry) -> None:
        prefix, round_labels = "job_controller_", ("completion_mode", "result", "action")
        self.sync_seconds = registry.histogram(
            prefix + "job_sync_duration_seconds", "How long a round of a Job takes", round_labels, _FROM_1_MS
        )
        self.syncs = registry.counter(prefix + "job_syncs_total", "Rounds of Jobs", round_labels)
        self.finished = registry.counter(
            prefix + "jobs_finished_total", "Jobs that ended", ("completion_mode", "result", "reason")
        )
        self.pods_finished = registry.counter(
            prefix + "job_pods_finished_total", "Pods that ended and are counted", ("completion_mode", "result")
        )
        self.pods_made = registry.counter(
            prefix + "job_pods_creation_total", "Pods made, or not, and what for", ("reason", "status")
        )
        self.failures_ruled = registry.counter(
            prefix + "pod_failures_handled_by_failure_policy_total", "Failed pods that a rule was about", ("action",)
        )
        self.finalizers = registry.counter(
            prefix + "terminated_pods_tracking_finalizer_total",
            "Ended pods that came to have the tracking finalizer, or lost it",
            ("event",),
        )
        self.indexes = registry.counter(
            prefix + "job_finished_indexes_total", "Indexes that ended", ("status", "backoffLimit")
        )
        self.elsewhere = registry.counter(
            prefix + "jobs_by_external_controller_total", "Jobs that others manage", ("controller_name",)
        )


class AutoscalerMetrics:
    """Source: pkg/controller/podautoscaler/metrics/metrics.go."""

    def __init__(self, registry: Registry) -> None:
        prefix, labels = "horizontal_pod_autoscaler_controller_", ("action", "error")
        self.rounds = registry.counter(prefix + "reconciliations_total", "Looks at autoscalers", labels)
        self.seconds = registry.histogram(
            prefix + "reconciliation_duration_seconds", "How long they took", labels, _FROM_1_MS
        )


class SliceMetrics:
    """Counts without _total in their name are gauges here, to keep upstream's. Source: k8s.io/endpointslice/metrics."""

    def __init__(self, registry: Registry) -> None:
        prefix = "endpoint_slice_controller_"
        self.added = registry.histogram(
            prefix + "endpoints_added_per_sync", "Endpoints added in a sync of a Service", buckets=_COUNTS
        )
        self.removed = registry.histogram(
            prefix + "endpoints_removed_per_sync", "Endpoints removed in a sync of a Service", buckets=_COUNTS
        )
        self.changed = registry.histogram(
            prefix + "endpointslices_changed_per_sync",
            "Slices changed in a sync of a Service",
            ("topology", "traffic_distribution"),
            _COUNTS,
        )
        self.changes = registry.gauge(prefix + "changes", "Changes of slices so far", ("operation",))
        self.syncs = registry.gauge(prefix + "syncs", "Syncs of Services so far", ("result",))


class NodeMetrics:
    """Source: pkg/controller/nodelifecycle/metrics.go and pkg/controller/tainteviction/metrics."""

    def __init__(self, registry: Registry) -> None:
        self.evictions = registry.counter(
            "node_collector_evictions_total", "Nodes whose pods were told to go", ("zone",)
        )
        self.health_seconds = registry.histogram(
            "node_collector_update_node_health_duration_seconds", "How long a look at a node takes", buckets=_FROM_1_MS
        )
        self.pod_deletions = registry.counter(
            "taint_eviction_controller_pod_deletions_total", "Pods deleted for the taints of their nodes"
        )
        self.pod_deletion_delay = registry.histogram(
            "taint_eviction_controller_pod_deletion_duration_seconds",
            "Time between the moment at which a pod was to go and its deletion",
            buckets=_DELETIONS,
        )
