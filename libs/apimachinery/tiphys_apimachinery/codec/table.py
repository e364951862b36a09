"""Objects as a meta.k8s.io/v1 Table, the form in which kubectl shows them.

Columns come from the schema's options, cells from the functions listed here.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.codec.cells import cluster, core, event, pod, workloads
from tiphys_apimachinery.codec.special import time_text
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.scheme import Column, ResourceInfo

Cells = Callable[[Any, datetime.datetime], list[Any]]
Table = dict[str, Any]

_CELLS: Final[dict[tuple[str, str], Cells]] = {
    ("v1", "ComponentStatus"): core.component_status_cells,
    ("v1", "ConfigMap"): core.config_map_cells,
    ("v1", "Endpoints"): core.endpoints_cells,
    ("v1", "Event"): event.core_event_cells,
    ("v1", "Namespace"): core.namespace_cells,
    ("v1", "Node"): core.node_cells,
    ("v1", "PersistentVolume"): core.persistent_volume_cells,
    ("v1", "PersistentVolumeClaim"): core.persistent_volume_claim_cells,
    ("v1", "Pod"): pod.pod_cells,
    ("v1", "PodTemplate"): core.pod_template_cells,
    ("v1", "ReplicationController"): core.replication_controller_cells,
    ("v1", "ResourceQuota"): core.resource_quota_cells,
    ("v1", "Secret"): core.secret_cells,
    ("v1", "Service"): core.service_cells,
    ("v1", "ServiceAccount"): core.service_account_cells,
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"): cluster.webhooks_cells,
    ("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicy"): cluster.mutating_policy_cells,
    ("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicyBinding"): cluster.admission_binding_cells,
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"): cluster.admission_policy_cells,
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"): cluster.admission_binding_cells,
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"): cluster.webhooks_cells,
    ("apiregistration.k8s.io/v1", "APIService"): cluster.api_service_cells,
    ("apps/v1", "ControllerRevision"): workloads.controller_revision_cells,
    ("apps/v1", "DaemonSet"): workloads.daemon_set_cells,
    ("apps/v1", "Deployment"): workloads.deployment_cells,
    ("apps/v1", "ReplicaSet"): workloads.replica_set_cells,
    ("apps/v1", "StatefulSet"): workloads.stateful_set_cells,
    ("autoscaling/v1", "HorizontalPodAutoscaler"): workloads.autoscaler_v1_cells,
    ("autoscaling/v1", "Scale"): workloads.scale_cells,
    ("autoscaling/v2", "HorizontalPodAutoscaler"): workloads.autoscaler_cells,
    ("batch/v1", "CronJob"): workloads.cron_job_cells,
    ("batch/v1", "Job"): workloads.job_cells,
    ("certificates.k8s.io/v1", "CertificateSigningRequest"): cluster.signing_request_cells,
    ("coordination.k8s.io/v1", "Lease"): cluster.lease_cells,
    ("discovery.k8s.io/v1", "EndpointSlice"): cluster.endpoint_slice_cells,
    ("events.k8s.io/v1", "Event"): event.event_cells,
    ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema"): cluster.flow_schema_cells,
    ("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration"): cluster.priority_level_cells,
    ("networking.k8s.io/v1", "IPAddress"): cluster.ip_address_cells,
    ("networking.k8s.io/v1", "Ingress"): cluster.ingress_cells,
    ("networking.k8s.io/v1", "IngressClass"): cluster.ingress_class_cells,
    ("networking.k8s.io/v1", "NetworkPolicy"): cluster.network_policy_cells,
    ("networking.k8s.io/v1", "ServiceCIDR"): cluster.service_cidr_cells,
    ("node.k8s.io/v1", "RuntimeClass"): cluster.runtime_class_cells,
    ("policy/v1", "PodDisruptionBudget"): workloads.pod_disruption_budget_cells,
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): cluster.binding_cells,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): cluster.binding_cells,
    ("resource.k8s.io/v1", "DeviceClass"): cluster.device_class_cells,
    ("resource.k8s.io/v1", "ResourceClaim"): cluster.resource_claim_cells,
    ("resource.k8s.io/v1", "ResourceClaimTemplate"): cluster.device_class_cells,
    ("resource.k8s.io/v1", "ResourceSlice"): cluster.resource_slice_cells,
    ("scheduling.k8s.io/v1", "PriorityClass"): cluster.priority_class_cells,
    ("storage.k8s.io/v1", "CSIDriver"): cluster.csi_driver_cells,
    ("storage.k8s.io/v1", "CSINode"): cluster.csi_node_cells,
    ("storage.k8s.io/v1", "CSIStorageCapacity"): cluster.storage_capacity_cells,
    ("storage.k8s.io/v1", "StorageClass"): cluster.storage_class_cells,
    ("storage.k8s.io/v1", "VolumeAttachment"): cluster.volume_attachment_cells,
    ("storage.k8s.io/v1", "VolumeAttributesClass"): cluster.attributes_class_cells,
}
_DEFAULT_COLUMNS: Final = (
    Column(name="Name", type="string", format="name", description="metadata.name"),
    Column(name="Created At", type="date", description="metadata.creationTimestamp"),
)


def table_for(
    resource: ResourceInfo, objects: Iterable[Message], now: datetime.datetime, include_object: str = "Metadata"
) -> Table:
    """The Table of objects of one resource, as plain JSON; the caller adds the list's metadata.

    include_object is Metadata, Object or None, as the query parameter of that name. Raises
    BadRequest for another word.
    """
    if include_object not in ("Metadata", "Object", "None"):
        raise BadRequest(f"unrecognized includeObject value: {include_object}")
    cells = resource.cells or _CELLS.get((resource.api_version, resource.kind), _default_cells)
    rows = [_row(cells, obj, now, include_object) for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": column_definitions(resource.columns or _DEFAULT_COLUMNS),
        "rows": rows,
    }


def column_definitions(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The columns as the Table names them."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in columns
    ]


def partial_object(obj: Any) -> dict[str, Any]:
    """The object's metadata alone, as PartialObjectMetadata in JSON."""
    metadata = json_codec.to_json(obj.metadata, with_type_meta=False)
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}


def _row(cells: Cells, obj: Any, now: datetime.datetime, include_object: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": cells(obj, now)}
    if cells is pod.pod_cells and (conditions := pod.pod_conditions(obj)):
        row["conditions"] = conditions
    match include_object:
        case "Object":
            row["object"] = json_codec.to_json(obj)
        case "Metadata":
            row["object"] = partial_object(obj)
        case _:
            row["object"] = None
    return row


def _default_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    created = obj.metadata.creationTimestamp
    return [obj.metadata.name, time_text(created.seconds) if created.HasField("seconds") else None]
