"""Cluster roles of the cluster's own components.

Source: Kubernetes 1.34 default roles (core component and other component roles). Roles named tiphys: are ours, for
components that Kubernetes leaves to add-ons.
"""

from __future__ import annotations

from tiphys_apiserver.bootstrap.policy import (
    READ,
    WRITE_EVENTS,
    RoleSpec,
    Rule,
    allow,
    bind_cluster_role,
    service_account,
    user,
)

_REVIEWS = (
    allow("create", "authentication.k8s.io", "tokenreviews"),
    allow("create", "authorization.k8s.io", "subjectaccessreviews"),
)


def _leader_election(lease: str) -> tuple[Rule, ...]:
    return (
        allow("create", "coordination.k8s.io", "leases"),
        allow("get update list watch", "coordination.k8s.io", "leases", names=lease),
        allow("create get list update watch patch delete", "coordination.k8s.io", "leasecandidates"),
    )


# Held for installations without the Node authorizer; the Node authorizer reads these same rules for what it does not
# decide by its graph.
NODE_RULES = (
    allow("create", "authentication.k8s.io", "tokenreviews"),
    allow("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
    allow(READ, "core", "services"),
    allow("create get list watch", "core", "nodes"),
    allow("patch update", "core", "nodes/status"),
    allow("patch update", "core", "nodes"),
    allow("create patch update", "core", "events"),
    allow("create patch update", "events.k8s.io", "events"),
    allow(READ, "core", "pods"),
    allow("create delete", "core", "pods"),
    allow("patch update", "core", "pods/status"),
    allow("create", "core", "pods/eviction"),
    allow(READ, "core", "configmaps secrets"),
    allow("get", "core", "persistentvolumeclaims persistentvolumes"),
    allow("get", "core", "endpoints"),
    allow("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
    allow("create delete get patch update", "coordination.k8s.io", "leases"),
    allow("get", "storage.k8s.io", "volumeattachments"),
    allow("create", "core", "serviceaccounts/token"),
    allow("get patch update", "core", "persistentvolumeclaims/status"),
    allow(READ, "storage.k8s.io", "csidrivers"),
    allow("create delete get patch update", "storage.k8s.io", "csinodes"),
    allow(READ, "node.k8s.io", "runtimeclasses"),
    allow("get", "resource.k8s.io", "resourceclaims"),
    allow("create delete deletecollection get list patch update watch", "resource.k8s.io", "resourceslices"),
)

COMPONENT_ROLES = (
    RoleSpec("system:auth-delegator", _REVIEWS),
    RoleSpec("system:kube-aggregator", (allow(READ, "core", "endpoints services"),)),
    RoleSpec(
        "system:kube-controller-manager",
        (
            WRITE_EVENTS,
            *_leader_election("kube-controller-manager"),
            allow("create", "core", "secrets serviceaccounts"),
            allow("delete", "core", "secrets"),
            allow("get", "core", "configmaps namespaces secrets serviceaccounts"),
            allow("update", "core", "secrets serviceaccounts"),
            *_REVIEWS,
            allow("list watch", "*", "*"),
            allow("create", "core", "serviceaccounts/token"),
        ),
    ),
    RoleSpec("system:kube-dns", (allow("list watch", "core", "endpoints services"),)),
    RoleSpec(
        "tiphys:cluster-dns",
        (
            allow("list watch", "core", "endpoints services pods namespaces"),
            allow("list watch", "discovery.k8s.io", "endpointslices"),
        ),
    ),
    # What external-provisioner, -attacher and -resizer ask for together, as one process serves a node's drivers.
    RoleSpec(
        "tiphys:csi-companion",
        (
            WRITE_EVENTS,
            allow(READ, "core events.k8s.io", "events"),
            allow("create delete get list patch update watch", "core", "persistentvolumes"),
            allow("get list patch update watch", "core", "persistentvolumeclaims"),
            allow("patch update", "core", "persistentvolumes/status persistentvolumeclaims/status"),
            allow("get list patch update watch", "storage.k8s.io", "volumeattachments"),
            allow("patch update", "storage.k8s.io", "volumeattachments/status"),
            allow(READ, "storage.k8s.io", "storageclasses volumeattributesclasses csinodes csidrivers"),
            allow(READ, "core", "nodes pods"),
            allow("get", "core", "secrets"),
            allow("create delete get list patch update watch", "storage.k8s.io", "csistoragecapacities"),
            allow("create get list patch update watch", "coordination.k8s.io", "leases"),
        ),
    ),
    # What flannel's own manifest asks for, and events, so that a refused lease is seen at the node.
    RoleSpec(
        "tiphys:flannel",
        (
            WRITE_EVENTS,
            allow(READ, "core", "nodes"),
            allow("patch", "core", "nodes nodes/status"),
        ),
    ),
    RoleSpec(
        "system:kube-scheduler",
        (
            WRITE_EVENTS,
            *_leader_election("kube-scheduler"),
            allow(READ, "core", "nodes"),
            allow("delete get list watch", "core", "pods"),
            allow("create", "core", "bindings pods/binding"),
            allow("patch update", "core", "pods/status"),
            allow(READ, "core", "replicationcontrollers services"),
            allow(READ, "apps extensions", "replicasets"),
            allow(READ, "apps", "statefulsets"),
            allow(READ, "policy", "poddisruptionbudgets"),
            allow(READ, "core", "persistentvolumeclaims persistentvolumes"),
            *_REVIEWS,
            allow(READ, "storage.k8s.io", "csinodes"),
            allow(READ, "core", "namespaces"),
            allow(READ, "storage.k8s.io", "csidrivers csistoragecapacities volumeattachments"),
            allow(READ, "resource.k8s.io", "deviceclasses resourceslices"),
            allow("get list watch patch update", "resource.k8s.io", "resourceclaims"),
            allow("patch update", "resource.k8s.io", "resourceclaims/status"),
            allow("patch update", "resource.k8s.io", "resourceclaims/binding"),
            allow("update", "core", "pods/finalizers"),
        ),
    ),
    RoleSpec(
        "system:volume-scheduler",
        (
            allow("get list patch update watch", "core", "persistentvolumes persistentvolumeclaims"),
            allow(READ, "storage.k8s.io", "storageclasses"),
        ),
    ),
    # For profiles that place pods by what nodes were measured to use.
    RoleSpec("tiphys:measured-use", (allow("list", "metrics.k8s.io", "nodes pods"),)),
    RoleSpec(
        "system:kubelet-api-admin",
        (
            allow(READ, "core", "nodes"),
            allow("proxy", "core", "nodes"),
            allow(
                "*", "core", "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats"
            ),
        ),
    ),
    RoleSpec("system:node", NODE_RULES),
    RoleSpec(
        "system:node-bootstrapper",
        (allow("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),),
    ),
    RoleSpec(
        "system:node-problem-detector",
        (allow("get", "core", "nodes"), allow("patch", "core", "nodes/status"), WRITE_EVENTS),
    ),
    RoleSpec(
        "system:node-proxier",
        (
            allow("list watch", "core", "endpoints services"),
            allow(READ, "core", "nodes"),
            WRITE_EVENTS,
            allow("list watch", "discovery.k8s.io", "endpointslices"),
            allow("list watch", "networking.k8s.io", "servicecidrs"),
        ),
    ),
    RoleSpec(
        "system:persistent-volume-provisioner",
        (
            allow("create delete get list watch", "core", "persistentvolumes"),
            allow("get list update watch", "core", "persistentvolumeclaims"),
            allow(READ, "storage.k8s.io", "storageclasses"),
            allow("watch", "core", "events"),
            WRITE_EVENTS,
        ),
    ),
    RoleSpec(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        (allow("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient"),),
    ),
    RoleSpec(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        (allow("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient"),),
    ),
    *(
        RoleSpec(
            f"system:certificates.k8s.io:{signer}-approver",
            (allow("approve", "certificates.k8s.io", "signers", names=f"kubernetes.io/{signer}"),),
        )
        for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
    ),
)

COMPONENT_BINDINGS = (
    bind_cluster_role("system:node-proxier", user("system:kube-proxy")),
    bind_cluster_role("system:kube-controller-manager", user("system:kube-controller-manager")),
    bind_cluster_role("system:kube-dns", service_account("kube-dns")),
    bind_cluster_role("tiphys:cluster-dns", user("system:cluster-dns")),
    bind_cluster_role("tiphys:flannel", user("system:flannel")),
    bind_cluster_role("tiphys:csi-companion", user("system:tiphys:csi-companion")),
    bind_cluster_role("system:kube-scheduler", user("system:kube-scheduler")),
    bind_cluster_role("system:volume-scheduler", user("system:kube-scheduler")),
    bind_cluster_role("tiphys:measured-use", user("system:kube-scheduler")),
    # Nodes are judged by the Node authorizer; the binding stays for those who add subjects to it.
    bind_cluster_role("system:node"),
)
