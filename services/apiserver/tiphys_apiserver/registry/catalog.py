"""Which strategy serves which resource: the one table. Kinds not named here have the default."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.registry.strategy import Environment, Strategy

# (group, plural) -> module and class under tiphys_apiserver.registry. Imported on first use, so
# that starting does not pay for kinds that nobody touches.
_FLOW = "flowcontrol.apiserver.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_RESOURCE = "resource.k8s.io"
_STORAGE = "storage.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
STRATEGIES: dict[tuple[str, str], tuple[str, str]] = {
    ("", "configmaps"): ("core.config_map", "ConfigMapStrategy"),
    ("", "endpoints"): ("core.endpoints", "EndpointsStrategy"),
    ("", "events"): ("core.event", "EventStrategy"),
    ("", "namespaces"): ("core.namespace", "NamespaceStrategy"),
    ("", "nodes"): ("core.node", "NodeStrategy"),
    ("", "persistentvolumeclaims"): ("core.persistent_volume_claim", "PersistentVolumeClaimStrategy"),
    ("", "persistentvolumes"): ("core.persistent_volume", "PersistentVolumeStrategy"),
    ("", "pods"): ("core.pod", "PodStrategy"),
    ("", "podtemplates"): ("core.pod", "PodTemplateStrategy"),
    ("", "replicationcontrollers"): ("core.replication_controller", "ReplicationControllerStrategy"),
    ("", "secrets"): ("core.secret", "SecretStrategy"),
    ("", "serviceaccounts"): ("core.service_account", "ServiceAccountStrategy"),
    ("", "services"): ("core.service", "ServiceStrategy"),
    (_ADMISSION, "mutatingadmissionpolicies"): ("admissionregistration.expressions", "MutatingPolicyStrategy"),
    (_ADMISSION, "mutatingadmissionpolicybindings"): ("admissionregistration.expressions", "BindingStrategy"),
    (_ADMISSION, "mutatingwebhookconfigurations"): ("admissionregistration.expressions", "WebhookStrategy"),
    (_ADMISSION, "validatingadmissionpolicies"): ("admissionregistration.expressions", "PolicyStrategy"),
    (_ADMISSION, "validatingadmissionpolicybindings"): ("admissionregistration.expressions", "BindingStrategy"),
    (_ADMISSION, "validatingwebhookconfigurations"): ("admissionregistration.expressions", "WebhookStrategy"),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (
        "apiextensions.custom_resource_definition",
        "CustomResourceDefinitionStrategy",
    ),
    ("apiregistration.k8s.io", "apiservices"): ("apiregistration.api_service", "APIServiceStrategy"),
    ("apps", "daemonsets"): ("apps.daemon_set", "DaemonSetStrategy"),
    ("apps", "deployments"): ("apps.deployment", "DeploymentStrategy"),
    ("apps", "replicasets"): ("apps.replica_set", "ReplicaSetStrategy"),
    ("apps", "statefulsets"): ("apps.stateful_set", "StatefulSetStrategy"),
    ("autoscaling", "horizontalpodautoscalers"): (
        "autoscaling.horizontal_pod_autoscaler",
        "HorizontalPodAutoscalerStrategy",
    ),
    ("batch", "cronjobs"): ("batch.cron_job", "CronJobStrategy"),
    ("batch", "jobs"): ("batch.job", "JobStrategy"),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        "certificates.certificate_signing_request",
        "CertificateSigningRequestStrategy",
    ),
    ("coordination.k8s.io", "leases"): ("coordination.lease", "LeaseStrategy"),
    ("discovery.k8s.io", "endpointslices"): ("discovery.endpoint_slice", "EndpointSliceStrategy"),
    (_FLOW, "flowschemas"): ("flowcontrol.flow_schema", "FlowSchemaStrategy"),
    (_FLOW, "prioritylevelconfigurations"): (
        "flowcontrol.priority_level_configuration",
        "PriorityLevelConfigurationStrategy",
    ),
    ("networking.k8s.io", "ingresses"): ("networking.ingress", "IngressStrategy"),
    ("networking.k8s.io", "networkpolicies"): ("networking.network_policy", "NetworkPolicyStrategy"),
    ("policy", "poddisruptionbudgets"): ("policy.pod_disruption_budget", "PodDisruptionBudgetStrategy"),
    (_RBAC, "clusterrolebindings"): ("rbac.binding", "BindingStrategy"),
    (_RBAC, "clusterroles"): ("rbac.role", "RoleStrategy"),
    (_RBAC, "rolebindings"): ("rbac.binding", "BindingStrategy"),
    (_RBAC, "roles"): ("rbac.role", "RoleStrategy"),
    (_RESOURCE, "deviceclasses"): ("resource.resource_claim", "DeviceClassStrategy"),
    (_RESOURCE, "resourceclaims"): ("resource.resource_claim", "ResourceClaimStrategy"),
    (_RESOURCE, "resourceclaimtemplates"): ("resource.resource_claim", "ResourceClaimTemplateStrategy"),
    (_RESOURCE, "resourceslices"): ("resource.resource_slice", "ResourceSliceStrategy"),
    ("scheduling.k8s.io", "priorityclasses"): ("scheduling.priority_class", "PriorityClassStrategy"),
    (_STORAGE, "csidrivers"): ("storage.csi_node", "CSIDriverStrategy"),
    (_STORAGE, "csinodes"): ("storage.csi_node", "CSINodeStrategy"),
    (_STORAGE, "storageclasses"): ("storage.storage_class", "StorageClassStrategy"),
    (_STORAGE, "volumeattachments"): ("storage.volume_attachment", "VolumeAttachmentStrategy"),
}


def strategy_for(resource: ResourceInfo, environment: Environment) -> Strategy:
    """A new strategy for the resource."""
    entry = STRATEGIES.get((resource.group, resource.plural))
    if entry is None:
        return Strategy(resource, environment)
    module, name = entry
    strategy_class = getattr(import_module(f"tiphys_apiserver.registry.{module}"), name)
    return cast(Strategy, strategy_class(resource, environment))
