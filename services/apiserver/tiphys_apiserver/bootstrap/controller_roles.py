"""One cluster role per control loop, so that each may do only what it must.

Source: Kubernetes 1.34 controller roles. Each is bound to the loop's service account in kube-system, as upstream
runs them, and to the controller manager's own user, under which all of our loops speak until each asks for a token.
"""

from __future__ import annotations

from tiphys_apiserver.bootstrap.policy import (
    READ,
    WRITE_EVENTS,
    BindingSpec,
    RoleSpec,
    Rule,
    allow,
    bind_cluster_role,
    service_account,
    user,
)

_OWN = "create delete get list patch update watch"
_PODS_OF_OWNER = allow("create delete list patch watch", "core", "pods")


def _controller(name: str, *rules: Rule, events: bool = True) -> RoleSpec:
    return RoleSpec(f"system:controller:{name}", (*rules, WRITE_EVENTS) if events else rules)


CONTROLLER_ROLES = (
    _controller(
        "attachdetach-controller",
        allow("list watch", "core", "persistentvolumeclaims persistentvolumes"),
        allow(READ, "core", "nodes"),
        allow("patch update", "core", "nodes/status"),
        allow("list watch", "core", "pods"),
        allow("create delete get list watch", "storage.k8s.io", "volumeattachments"),
        allow(READ, "storage.k8s.io", "csidrivers csinodes"),
    ),
    _controller(
        "certificate-controller",
        allow("delete get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        allow("update", "certificates.k8s.io", "certificatesigningrequests/approval certificatesigningrequests/status"),
        allow("approve", "certificates.k8s.io", "signers", names="kubernetes.io/kube-apiserver-client-kubelet"),
        allow(
            "sign",
            "certificates.k8s.io",
            "signers",
            names="kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet"
            " kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
        ),
        allow("create", "authorization.k8s.io", "subjectaccessreviews"),
    ),
    _controller(
        "clusterrole-aggregation-controller",
        allow("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles"),
        events=False,
    ),
    _controller(
        "cronjob-controller",
        allow("get list update watch", "batch", "cronjobs"),
        allow(_OWN, "batch", "jobs"),
        allow("update", "batch", "cronjobs/status cronjobs/finalizers"),
        allow("delete list watch", "core", "pods"),
    ),
    _controller(
        "daemon-set-controller",
        allow(READ, "apps extensions", "daemonsets"),
        allow("update", "apps extensions", "daemonsets/status daemonsets/finalizers"),
        allow("list watch", "core", "nodes"),
        _PODS_OF_OWNER,
        allow("create", "core", "pods/binding"),
        allow(_OWN, "apps", "controllerrevisions"),
    ),
    _controller(
        "deployment-controller",
        allow("get list update watch", "apps extensions", "deployments"),
        allow("update", "apps extensions", "deployments/status deployments/finalizers"),
        allow(_OWN, "apps extensions", "replicasets"),
        allow("get list update watch", "core", "pods"),
    ),
    _controller(
        "device-taint-eviction-controller",
        allow("delete get list watch", "core", "pods"),
        allow("patch update", "core", "pods/status"),
        allow(READ, "resource.k8s.io", "resourceclaims resourceslices deviceclasses"),
    ),
    _controller(
        "disruption-controller",
        allow(READ, "apps extensions", "deployments replicasets"),
        allow(READ, "core", "replicationcontrollers"),
        allow(READ, "policy", "poddisruptionbudgets"),
        allow(READ, "apps", "statefulsets"),
        allow("update", "policy", "poddisruptionbudgets/status"),
        allow("patch update", "core", "pods/status"),
        allow("get", "*", "*/scale"),
    ),
    _controller(
        "endpoint-controller",
        allow(READ, "core", "pods services"),
        allow("create delete get list update watch", "core", "endpoints"),
        allow("create", "core", "endpoints/restricted"),
    ),
    _controller(
        "endpointslice-controller",
        allow(READ, "core", "nodes pods services"),
        allow("update", "core", "services/finalizers"),
        allow("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
        allow("create", "discovery.k8s.io", "endpointslices/restricted"),
    ),
    _controller(
        "endpointslicemirroring-controller",
        allow(READ, "core", "endpoints services"),
        allow("update", "core", "services/finalizers endpoints/finalizers"),
        allow("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
        allow("create", "discovery.k8s.io", "endpointslices/restricted"),
    ),
    _controller(
        "ephemeral-volume-controller",
        allow(READ, "core", "pods"),
        allow("update", "core", "pods/finalizers"),
        allow("create get list watch", "core", "persistentvolumeclaims"),
    ),
    _controller(
        "expand-controller",
        allow("get list patch update watch", "core", "persistentvolumes"),
        allow("patch update", "core", "persistentvolumeclaims/status"),
        allow(READ, "core", "persistentvolumeclaims"),
    ),
    _controller("generic-garbage-collector", allow("delete get list patch update watch", "*", "*")),
    _controller(
        "horizontal-pod-autoscaler",
        allow(READ, "autoscaling", "horizontalpodautoscalers"),
        allow("update", "autoscaling", "horizontalpodautoscalers/status"),
        allow("get update", "*", "*/scale"),
        allow("list watch", "core", "pods"),
        allow("list watch", "metrics.k8s.io", "pods"),
        allow(READ, "custom.metrics.k8s.io", "*"),
        allow(READ, "external.metrics.k8s.io", "*"),
    ),
    _controller(
        "job-controller",
        allow("get list patch update watch", "batch", "jobs"),
        allow("update", "batch", "jobs/status jobs/finalizers"),
        _PODS_OF_OWNER,
    ),
    _controller(
        "legacy-service-account-token-cleaner",
        allow("get", "core", "configmaps", names="kube-apiserver-legacy-service-account-token-tracking"),
        allow("delete patch", "core", "secrets"),
        events=False,
    ),
    _controller(
        "namespace-controller",
        allow("delete get list watch", "core", "namespaces"),
        allow("update", "core", "namespaces/finalize namespaces/status"),
        allow("delete deletecollection get list watch", "*", "*"),
        events=False,
    ),
    _controller(
        "node-controller",
        allow("delete get list patch update watch", "core", "nodes"),
        allow("patch update", "core", "nodes/status"),
        allow("patch update", "core", "pods/status"),
        allow("delete get list watch", "core", "pods"),
        allow(READ, "coordination.k8s.io", "leases"),
    ),
    _controller(
        "persistent-volume-binder",
        allow("create delete get list update watch", "core", "persistentvolumes"),
        allow("update", "core", "persistentvolumes/status persistentvolumeclaims/status"),
        allow("get list update watch", "core", "persistentvolumeclaims"),
        allow("create delete get list watch", "core", "pods"),
        allow(READ, "storage.k8s.io", "storageclasses"),
        allow("list watch", "core", "nodes"),
        allow("watch", "core", "events"),
    ),
    _controller(
        "pod-garbage-collector",
        allow("delete list watch", "core", "pods"),
        allow(READ, "core", "nodes"),
        allow("patch", "core", "pods/status"),
        events=False,
    ),
    _controller("pv-protection-controller", allow("get list update watch", "core", "persistentvolumes")),
    _controller(
        "pvc-protection-controller",
        allow("get list update watch", "core", "persistentvolumeclaims"),
        allow("update", "core", "persistentvolumeclaims/status"),
        allow(READ, "core", "pods"),
    ),
    _controller(
        "replicaset-controller",
        allow("get list update watch", "apps extensions", "replicasets"),
        allow("update", "apps extensions", "replicasets/status replicasets/finalizers"),
        _PODS_OF_OWNER,
    ),
    _controller(
        "replication-controller",
        allow("get list update watch", "core", "replicationcontrollers"),
        allow("update", "core", "replicationcontrollers/status replicationcontrollers/finalizers"),
        _PODS_OF_OWNER,
    ),
    _controller(
        "resource-claim-controller",
        allow(READ, "core", "pods"),
        allow("update", "core", "pods/finalizers"),
        allow("create delete get list watch", "resource.k8s.io", "resourceclaims"),
        allow(READ, "resource.k8s.io", "resourceclaimtemplates"),
        allow("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaims/binding"),
        allow("patch update", "core", "pods/status"),
    ),
    _controller(
        "resourcequota-controller",
        allow("list watch", "*", "*"),
        allow("update", "core", "resourcequotas/status"),
    ),
    _controller("root-ca-cert-publisher", allow("create update", "core", "configmaps")),
    _controller("route-controller", allow("list watch", "core", "nodes"), allow("patch", "core", "nodes/status")),
    _controller(
        "selinux-warning-controller",
        allow(READ, "core", "persistentvolumes persistentvolumeclaims pods"),
        allow(READ, "storage.k8s.io", "csidrivers"),
    ),
    _controller("service-account-controller", allow("create", "core", "serviceaccounts")),
    _controller(
        "service-cidrs-controller",
        allow("get list patch update watch", "networking.k8s.io", "servicecidrs"),
        allow("patch update", "networking.k8s.io", "servicecidrs/finalizers servicecidrs/status"),
        allow(READ, "networking.k8s.io", "ipaddresses"),
    ),
    _controller(
        "service-controller",
        allow(READ, "core", "services"),
        allow("patch update", "core", "services/status"),
        allow("list watch", "core", "nodes"),
    ),
    _controller(
        "statefulset-controller",
        allow("list watch", "core", "pods"),
        allow(READ, "apps", "statefulsets"),
        allow("update", "apps", "statefulsets/status statefulsets/finalizers"),
        allow("create delete get patch update", "core", "pods"),
        allow(_OWN, "apps", "controllerrevisions"),
        allow("create delete get list update watch", "core", "persistentvolumeclaims"),
        allow("update", "core", "pods/finalizers"),
    ),
    _controller("ttl-after-finished-controller", allow("delete get list watch", "batch", "jobs")),
    _controller("ttl-controller", allow("list patch update watch", "core", "nodes")),
    _controller(
        "validatingadmissionpolicy-status-controller",
        allow(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
        allow("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
    ),
    _controller(
        "volumeattributesclass-protection-controller",
        allow(READ, "core", "persistentvolumeclaims persistentvolumes"),
        allow("get list update watch", "storage.k8s.io", "volumeattributesclasses"),
    ),
)


def _binding(role: RoleSpec) -> BindingSpec:
    account = role.name.removeprefix("system:controller:")
    return bind_cluster_role(role.name, service_account(account), user("system:kube-controller-manager"))


CONTROLLER_BINDINGS = tuple(_binding(role) for role in CONTROLLER_ROLES)
