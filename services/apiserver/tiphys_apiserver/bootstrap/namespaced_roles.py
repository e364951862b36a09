"""Roles and bindings inside kube-system and kube-public.

Source: Kubernetes 1.34 default namespaced roles.
"""

from __future__ import annotations

from tiphys_apiserver.bootstrap.policy import (
    READ,
    WRITE_EVENTS,
    RoleSpec,
    allow,
    bind_role,
    service_account,
    user,
)

_CONTROLLER_MANAGER = user("system:kube-controller-manager")
_SCHEDULER = user("system:kube-scheduler")
_CLUSTER_DNS = user("system:cluster-dns")

_LEADER_LOCKING = (
    allow("create get list update watch", "coordination.k8s.io", "leases"),
    allow("create get list update watch", "coordination.k8s.io", "leasecandidates"),
)

NAMESPACED_ROLES = (
    RoleSpec(
        "extension-apiserver-authentication-reader",
        (allow(READ, "core", "configmaps", names="extension-apiserver-authentication"),),
        namespace="kube-system",
    ),
    RoleSpec("system:controller:bootstrap-signer", (allow(READ, "core", "secrets"),), namespace="kube-system"),
    RoleSpec(
        "system:controller:cloud-provider",
        (allow("create get list watch", "core", "configmaps"),),
        namespace="kube-system",
    ),
    RoleSpec(
        "system:controller:token-cleaner",
        (allow("delete get list watch", "core", "secrets"), WRITE_EVENTS),
        namespace="kube-system",
    ),
    RoleSpec("system::leader-locking-kube-controller-manager", _LEADER_LOCKING, namespace="kube-system"),
    RoleSpec("system::leader-locking-kube-scheduler", _LEADER_LOCKING, namespace="kube-system"),
    # cluster-dns runs beside the pods, not in one: it makes the Service kube-dns and its endpoints itself.
    RoleSpec(
        "tiphys:cluster-dns",
        (
            allow("create", "core", "services"),
            allow("get", "core", "services", names="kube-dns"),
            allow("create", "discovery.k8s.io", "endpointslices"),
            allow("get update", "discovery.k8s.io", "endpointslices", names="kube-dns"),
        ),
        namespace="kube-system",
    ),
    RoleSpec(
        "system:controller:bootstrap-signer",
        (
            allow(READ, "core", "configmaps"),
            allow("update", "core", "configmaps", names="cluster-info"),
            WRITE_EVENTS,
        ),
        namespace="kube-public",
    ),
)

NAMESPACED_BINDINGS = (
    bind_role(
        "kube-system",
        "extension-apiserver-authentication-reader",
        _CONTROLLER_MANAGER,
        _SCHEDULER,
        name="system::extension-apiserver-authentication-reader",
    ),
    bind_role("kube-system", "system:controller:bootstrap-signer", service_account("bootstrap-signer")),
    bind_role("kube-system", "system:controller:cloud-provider", service_account("cloud-provider")),
    bind_role("kube-system", "system:controller:token-cleaner", service_account("token-cleaner"), _CONTROLLER_MANAGER),
    bind_role(
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        _CONTROLLER_MANAGER,
        service_account("kube-controller-manager"),
        service_account("leader-election-controller"),
    ),
    bind_role("kube-system", "system::leader-locking-kube-scheduler", _SCHEDULER, service_account("kube-scheduler")),
    bind_role("kube-system", "tiphys:cluster-dns", _CLUSTER_DNS),
    bind_role("kube-public", "system:controller:bootstrap-signer", service_account("bootstrap-signer")),
)
