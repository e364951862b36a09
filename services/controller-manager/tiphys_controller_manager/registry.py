"""The controllers there are, in the order in which they start."""

from __future__ import annotations

from tiphys_controller_manager.controllers.attachdetach.controller import AttachDetachController
from tiphys_controller_manager.controllers.bootstrap_token.cleaning import TokenCleaner
from tiphys_controller_manager.controllers.certificates.approving import CertificateApprover
from tiphys_controller_manager.controllers.certificates.cleaning import CertificateCleaner
from tiphys_controller_manager.controllers.certificates.signing import CertificateSigner
from tiphys_controller_manager.controllers.cluster_role_aggregation.controller import ClusterRoleAggregationController
from tiphys_controller_manager.controllers.cronjob.controller import CronJobController
from tiphys_controller_manager.controllers.daemonset.controller import DaemonSetController
from tiphys_controller_manager.controllers.deployment.controller import DeploymentController
from tiphys_controller_manager.controllers.disruption.controller import DisruptionController
from tiphys_controller_manager.controllers.endpoints.controller import EndpointsController
from tiphys_controller_manager.controllers.endpointslice.controller import EndpointSliceController
from tiphys_controller_manager.controllers.endpointslice_mirroring.controller import EndpointSliceMirroringController
from tiphys_controller_manager.controllers.ephemeral_volume.controller import EphemeralVolumes
from tiphys_controller_manager.controllers.garbage_collector.controller import GarbageCollector
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.controller import HorizontalPodAutoscalerController
from tiphys_controller_manager.controllers.job.controller import JobController
from tiphys_controller_manager.controllers.namespace.controller import NamespaceController
from tiphys_controller_manager.controllers.node_ipam.controller import NodeIpamController
from tiphys_controller_manager.controllers.node_lifecycle.controller import NodeLifecycleController
from tiphys_controller_manager.controllers.persistentvolume_binder.controller import PersistentVolumeBinder
from tiphys_controller_manager.controllers.pod_gc.controller import PodGarbageCollector
from tiphys_controller_manager.controllers.pv_protection.controller import VolumeProtection
from tiphys_controller_manager.controllers.pvc_protection.controller import ClaimProtection
from tiphys_controller_manager.controllers.replicaset.controller import ReplicaSetController, replication_controllers
from tiphys_controller_manager.controllers.resource_claim.controller import ResourceClaims
from tiphys_controller_manager.controllers.resource_quota.controller import ResourceQuotaController
from tiphys_controller_manager.controllers.root_ca.controller import RootCAController
from tiphys_controller_manager.controllers.service_account.controller import ServiceAccountController
from tiphys_controller_manager.controllers.service_account_token.controller import ServiceAccountTokenController
from tiphys_controller_manager.controllers.statefulset.controller import StatefulSetController
from tiphys_controller_manager.controllers.taint_eviction.controller import TaintEvictionController
from tiphys_controller_manager.controllers.ttl_after_finished.controller import TTLAfterFinished
from tiphys_controller_manager.frame import ControllerSpec
from tiphys_controller_manager.options import Options

# Pods evicted at once, from however many nodes.
_EVICTIONS = 8
# Claims and volumes worked on at once: binding one takes three writes, and a burst of claims should not queue.
_BINDINGS = 4
# Pods and claims of devices worked on at once. Source: kube-controller-manager, resourceclaim controller.
_CLAIMS = 10
# Quotas counted at once. Source: kube-controller-manager --concurrent-resource-quota-syncs.
_QUOTAS = 5


def controllers(options: Options) -> tuple[ControllerSpec, ...]:
    """Every controller by the name that Kubernetes gives it, with its older name."""
    return (
        # Accounts and the authority first: no pod starts without them.
        ControllerSpec("serviceaccount-controller", ServiceAccountController, aliases=("serviceaccount",)),
        ControllerSpec(
            "serviceaccount-token-controller", ServiceAccountTokenController, aliases=("serviceaccount-token",)
        ),
        ControllerSpec(
            "root-ca-certificate-publisher-controller", RootCAController, aliases=("root-ca-cert-publisher",)
        ),
        ControllerSpec(
            "clusterrole-aggregation-controller",
            ClusterRoleAggregationController,
            aliases=("clusterrole-aggregation",),
        ),
        ControllerSpec("node-ipam-controller", NodeIpamController, aliases=("nodeipam",), event_source="cidrAllocator"),
        ControllerSpec(
            "node-lifecycle-controller",
            NodeLifecycleController,
            aliases=("nodelifecycle",),
            event_source="node-controller",
        ),
        ControllerSpec("taint-eviction-controller", TaintEvictionController, _EVICTIONS),
        *_workload_controllers(options),
        *_batch_controllers(options),
        _autoscaler(options),
        ControllerSpec(
            "disruption-controller", DisruptionController, aliases=("disruption",), event_source="controllermanager"
        ),
        *_storage_controllers(),
        *_service_controllers(options),
        *_cleaning_controllers(options),
    )


def _workload_controllers(options: Options) -> tuple[ControllerSpec, ...]:
    """What runs until it is told to end."""
    return (
        ControllerSpec(
            "deployment-controller",
            DeploymentController,
            options.concurrent_deployment_syncs,
            aliases=("deployment",),
        ),
        ControllerSpec(
            "replicaset-controller",
            ReplicaSetController,
            options.concurrent_replicaset_syncs,
            aliases=("replicaset",),
        ),
        ControllerSpec(
            "replicationcontroller-controller",
            replication_controllers,
            options.concurrent_rc_syncs,
            aliases=("replicationcontroller",),
            event_source="replication-controller",
        ),
        ControllerSpec(
            "statefulset-controller",
            StatefulSetController,
            options.concurrent_statefulset_syncs,
            aliases=("statefulset",),
        ),
        ControllerSpec(
            "daemonset-controller",
            DaemonSetController,
            options.concurrent_daemonset_syncs,
            aliases=("daemonset",),
        ),
    )


def _service_controllers(options: Options) -> tuple[ControllerSpec, ...]:
    """Who answers for a service, in both forms."""
    services = options.concurrent_service_endpoint_syncs
    return (
        ControllerSpec(
            "endpointslice-controller",
            EndpointSliceController,
            services,
            aliases=("endpointslice",),
            event_source="endpoint-slice-controller",
        ),
        ControllerSpec(
            "endpoints-controller",
            EndpointsController,
            services,
            aliases=("endpoint",),
            event_source="endpoint-controller",
        ),
        ControllerSpec(
            "endpointslice-mirroring-controller",
            EndpointSliceMirroringController,
            options.mirroring_concurrent_service_endpoint_syncs,
            aliases=("endpointslicemirroring",),
        ),
    )


def _batch_controllers(options: Options) -> tuple[ControllerSpec, ...]:
    """What runs to an end."""
    return (
        ControllerSpec("job-controller", JobController, options.concurrent_job_syncs, aliases=("job",)),
        ControllerSpec(
            "cronjob-controller", CronJobController, options.concurrent_cron_job_syncs, aliases=("cronjob",)
        ),
        ControllerSpec(
            "ttl-after-finished-controller",
            TTLAfterFinished,
            options.concurrent_ttl_after_finished_syncs,
            aliases=("ttl-after-finished",),
        ),
    )


def _autoscaler(options: Options) -> ControllerSpec:
    return ControllerSpec(
        "horizontal-pod-autoscaler-controller",
        HorizontalPodAutoscalerController,
        options.concurrent_horizontal_pod_autoscaler_syncs,
        aliases=("horizontalpodautoscaling",),
        event_source="horizontal-pod-autoscaler",
    )


def _storage_controllers() -> tuple[ControllerSpec, ...]:
    """Claims, volumes, and where these are attached."""
    return (
        ControllerSpec(
            "persistentvolume-binder-controller",
            PersistentVolumeBinder,
            _BINDINGS,
            aliases=("persistentvolume-binder",),
            event_source="persistentvolume-controller",
        ),
        ControllerSpec("persistentvolumeclaim-protection-controller", ClaimProtection, aliases=("pvc-protection",)),
        ControllerSpec(
            "persistentvolume-attach-detach-controller",
            AttachDetachController,
            _BINDINGS,
            aliases=("attachdetach", "persistentvolume-attach-detach"),
            event_source="attachdetach-controller",
        ),
        ControllerSpec("persistentvolume-protection-controller", VolumeProtection, aliases=("pv-protection",)),
        ControllerSpec("ephemeral-volume-controller", EphemeralVolumes, aliases=("ephemeral-volume",)),
        ControllerSpec("resourceclaim-controller", ResourceClaims, _CLAIMS, aliases=("resource-claim-controller",)),
    )


def _cleaning_controllers(options: Options) -> tuple[ControllerSpec, ...]:
    """What is left over, and how much there is."""
    return (
        ControllerSpec(
            "namespace-controller",
            NamespaceController,
            options.concurrent_namespace_syncs,
            aliases=("namespace",),
        ),
        ControllerSpec(
            "garbage-collector-controller",
            GarbageCollector,
            options.concurrent_gc_syncs,
            aliases=("garbagecollector",),
        ),
        ControllerSpec("pod-garbage-collector-controller", PodGarbageCollector, aliases=("podgc",)),
        *_certificates(options),
        ControllerSpec("resourcequota-controller", ResourceQuotaController, _QUOTAS, aliases=("resourcequota",)),
    )


def _certificates(options: Options) -> tuple[ControllerSpec, ...]:
    return (
        ControllerSpec(
            "certificatesigningrequest-approving-controller",
            CertificateApprover,
            aliases=("csrapproving",),
            event_source="certificate-controller",
        ),
        ControllerSpec(
            "certificatesigningrequest-signing-controller",
            CertificateSigner,
            aliases=("csrsigning",),
            # Without the authority's key there is nothing that it could do.
            on_by_default=options.cluster_signing_key_file is not None,
            event_source="certificate-controller",
        ),
        ControllerSpec("certificatesigningrequest-cleaner-controller", CertificateCleaner, aliases=("csrcleaner",)),
        # Off where nobody asks for it, as in Kubernetes: it watches every Secret.
        ControllerSpec("token-cleaner-controller", TokenCleaner, on_by_default=False, aliases=("tokencleaner",)),
    )
