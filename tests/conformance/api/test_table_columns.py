"""A43: `kubectl get` prints the columns that it prints of Kubernetes, and with -o wide the same ones more.

Source: kubernetes pkg/printers/internalversion/printers.go, as in 1.34.
"""

from __future__ import annotations

import datetime

import pytest

from tiphys_apimachinery.codec.table import table_for
from tiphys_apimachinery.scheme import load_default

# Of a kind: the columns, and behind the bar those of -o wide.
COLUMNS = {
    "v1/Pod": "Name, Ready, Status, Restarts, Age | IP, Node, Nominated Node, Readiness Gates",
    "v1/PodTemplate": "Name, Containers, Images, Pod Labels",
    "v1/ReplicationController": "Name, Desired, Current, Ready, Age | Containers, Images, Selector",
    "v1/Service": "Name, Type, Cluster-IP, External-IP, Port(s), Age | Selector",
    "v1/Endpoints": "Name, Endpoints, Age",
    "v1/Node": "Name, Status, Roles, Age, Version"
    " | Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime",
    "v1/Event": "Last Seen, Type, Reason, Object, Message | Subobject, Source, First Seen, Count, Name",
    "v1/Namespace": "Name, Status, Age",
    "v1/Secret": "Name, Type, Data, Age",
    "v1/ConfigMap": "Name, Data, Age",
    "v1/ResourceQuota": "Name, Request, Limit, Age",
    "v1/PersistentVolume": "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass,"
    " VolumeAttributesClass, Reason, Age | VolumeMode",
    "v1/PersistentVolumeClaim": "Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass,"
    " Age | VolumeMode",
    "apps/v1/Deployment": "Name, Ready, Up-to-date, Available, Age | Containers, Images, Selector",
    "apps/v1/ReplicaSet": "Name, Desired, Current, Ready, Age | Containers, Images, Selector",
    "apps/v1/StatefulSet": "Name, Ready, Age | Containers, Images",
    "apps/v1/DaemonSet": "Name, Desired, Current, Ready, Up-to-date, Available, Node Selector, Age"
    " | Containers, Images, Selector",
    "apps/v1/ControllerRevision": "Name, Controller, Revision, Age",
    "batch/v1/Job": "Name, Status, Completions, Duration, Age | Containers, Images, Selector",
    "batch/v1/CronJob": "Name, Schedule, Timezone, Suspend, Active, Last Schedule, Age | Containers, Images, Selector",
    "autoscaling/v2/HorizontalPodAutoscaler": "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age",
    "policy/v1/PodDisruptionBudget": "Name, Min Available, Max Unavailable, Allowed Disruptions, Age",
    "networking.k8s.io/v1/Ingress": "Name, Class, Hosts, Address, Ports, Age",
    "networking.k8s.io/v1/IngressClass": "Name, Controller, Parameters, Age",
    "networking.k8s.io/v1/NetworkPolicy": "Name, Pod-Selector, Age",
    "rbac.authorization.k8s.io/v1/RoleBinding": "Name, Role, Age | Users, Groups, ServiceAccounts",
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding": "Name, Role, Age | Users, Groups, ServiceAccounts",
    "rbac.authorization.k8s.io/v1/ClusterRole": "Name, Created At",
    "certificates.k8s.io/v1/CertificateSigningRequest": "Name, Age, SignerName, Requestor, RequestedDuration,"
    " Condition",
    "storage.k8s.io/v1/StorageClass": "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age",
    "storage.k8s.io/v1/VolumeAttachment": "Name, Attacher, PV, Node, Attached, Age",
    "storage.k8s.io/v1/CSINode": "Name, Drivers, Age",
    "storage.k8s.io/v1/CSIDriver": "Name, AttachRequired, PodInfoOnMount, StorageCapacity, TokenRequests,"
    " RequiresRepublish, Modes, Age",
    "discovery.k8s.io/v1/EndpointSlice": "Name, AddressType, Ports, Endpoints, Age",
    "coordination.k8s.io/v1/Lease": "Name, Holder, Age",
    "scheduling.k8s.io/v1/PriorityClass": "Name, Value, Global-Default, Age, PreemptionPolicy",
    "node.k8s.io/v1/RuntimeClass": "Name, Handler, Age",
    "apiregistration.k8s.io/v1/APIService": "Name, Service, Available, Age",
    "apiextensions.k8s.io/v1/CustomResourceDefinition": "Name, Created At",
    "flowcontrol.apiserver.k8s.io/v1/FlowSchema": "Name, PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age,"
    " MissingPL",
    "admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration": "Name, Webhooks, Age",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_A43_columns_are_those_of_kubernetes(name: str) -> None:
    api_version, _, kind = name.rpartition("/")
    resource = next(one for one in load_default().resources() if (one.api_version, one.kind) == (api_version, kind))
    table = table_for(resource, [], datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC))
    plain, _, wide = COLUMNS[name].partition(" | ")
    shown = [(column["name"], bool(column.get("priority"))) for column in table["columnDefinitions"]]
    assert [column for column, is_wide in shown if not is_wide] == plain.split(", ")
    assert [column for column, is_wide in shown if is_wide] == (wide.split(", ") if wide else [])


def test_A43_the_table_has_the_thirty_kinds_that_its_row_asks_for() -> None:
    assert len(COLUMNS) >= 30
