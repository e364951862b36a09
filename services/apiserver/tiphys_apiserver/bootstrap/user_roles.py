"""Cluster roles for people and for what everybody may see.

Source: Kubernetes 1.34 default roles (user-facing and discovery roles of the RBAC reference).
"""

from __future__ import annotations

from tiphys_apiserver.bootstrap.policy import (
    READ,
    READ_WRITE,
    WRITE,
    RoleSpec,
    aggregate_to,
    allow,
    allow_urls,
    bind_cluster_role,
    group,
)

_AUTHENTICATED = group("system:authenticated")
_EVERYONE = (_AUTHENTICATED, group("system:unauthenticated"))

_HEALTH = "/healthz /livez /readyz"

USER_ROLES = (
    RoleSpec("cluster-admin", (allow("*", "*", "*"), allow_urls("*", "*"))),
    RoleSpec("admin", aggregate_from="admin"),
    RoleSpec("edit", aggregate_from="edit", labels=aggregate_to("admin")),
    RoleSpec("view", aggregate_from="view", labels=aggregate_to("edit")),
    RoleSpec(
        "system:aggregate-to-admin",
        (
            allow("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            allow(READ_WRITE, "rbac.authorization.k8s.io", "roles rolebindings"),
        ),
        labels=aggregate_to("admin"),
    ),
    RoleSpec(
        "system:aggregate-to-edit",
        (
            allow(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
            allow("impersonate", "core", "serviceaccounts"),
            allow(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            allow("create", "core", "pods/eviction"),
            allow("patch update", "core", "pods/resize"),
            allow(
                WRITE,
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale"
                " secrets serviceaccounts services services/proxy",
            ),
            allow("create", "core", "serviceaccounts/token"),
            allow(
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale"
                " statefulsets statefulsets/scale",
            ),
            allow(WRITE, "autoscaling", "horizontalpodautoscalers"),
            allow(WRITE, "batch", "cronjobs jobs"),
            allow(
                WRITE,
                "extensions",
                "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets"
                " replicasets/scale replicationcontrollers/scale",
            ),
            allow(WRITE, "policy", "poddisruptionbudgets"),
            allow(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
            allow(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
            allow(READ_WRITE, "coordination.k8s.io", "leases"),
        ),
        labels=aggregate_to("edit"),
    ),
    RoleSpec(
        "system:aggregate-to-view",
        (
            allow(
                READ,
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers"
                " replicationcontrollers/scale serviceaccounts services services/status",
            ),
            allow(
                READ,
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status"
                " resourcequotas resourcequotas/status",
            ),
            allow(READ, "core", "namespaces"),
            allow(READ, "discovery.k8s.io", "endpointslices"),
            allow(
                READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status"
                " replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            allow(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            allow(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            allow(
                READ,
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses"
                " ingresses/status networkpolicies replicasets replicasets/scale replicasets/status"
                " replicationcontrollers/scale",
            ),
            allow(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            allow(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            allow(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
        ),
        labels=aggregate_to("view"),
    ),
    # Source: metrics-server's manifests.
    RoleSpec(
        "system:aggregated-metrics-reader",
        (allow(READ, "metrics.k8s.io", "pods nodes"),),
        labels=aggregate_to("view", "edit", "admin"),
    ),
    RoleSpec(
        "system:discovery",
        (allow_urls("get", f"/api /api/* /apis /apis/* {_HEALTH} /openapi /openapi/* /version /version/"),),
    ),
    RoleSpec(
        "system:basic-user",
        (
            allow("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            allow("create", "authentication.k8s.io", "selfsubjectreviews"),
        ),
    ),
    RoleSpec("system:public-info-viewer", (allow_urls("get", f"{_HEALTH} /version /version/"),)),
    RoleSpec(
        "system:service-account-issuer-discovery",
        (
            allow_urls(
                "get",
                "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
            ),
        ),
    ),
    RoleSpec(
        "system:monitoring",
        (
            allow_urls(
                "get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /statusz /flagz"
            ),
        ),
    ),
)

USER_BINDINGS = (
    bind_cluster_role("cluster-admin", group("system:masters")),
    bind_cluster_role("system:monitoring", group("system:monitoring")),
    bind_cluster_role("system:discovery", _AUTHENTICATED),
    bind_cluster_role("system:basic-user", _AUTHENTICATED),
    bind_cluster_role("system:public-info-viewer", *_EVERYONE),
    bind_cluster_role("system:service-account-issuer-discovery", group("system:serviceaccounts")),
)
