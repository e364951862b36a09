"""Which strategy serves which resource: the one table. Kinds not named here have the default."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.registry.strategy import Environment, Strategy

# (group, plural) -> module and class under tiphys_apiserver.registry. Imported on first use, so
# that starting does not pay for kinds that nobody touches.
_RBAC = "rbac.authorization.k8s.io"
STRATEGIES: dict[tuple[str, str], tuple[str, str]] = {
    ("", "namespaces"): ("core.namespace", "NamespaceStrategy"),
    ("", "replicationcontrollers"): ("core.replication_controller", "ReplicationControllerStrategy"),
    ("", "services"): ("core.service", "ServiceStrategy"),
    ("apps", "daemonsets"): ("apps.daemon_set", "DaemonSetStrategy"),
    ("apps", "deployments"): ("apps.deployment", "DeploymentStrategy"),
    ("apps", "replicasets"): ("apps.replica_set", "ReplicaSetStrategy"),
    ("apps", "statefulsets"): ("apps.stateful_set", "StatefulSetStrategy"),
    ("batch", "cronjobs"): ("batch.cron_job", "CronJobStrategy"),
    ("batch", "jobs"): ("batch.job", "JobStrategy"),
    ("", "pods"): ("core.pod", "PodStrategy"),
    ("", "podtemplates"): ("core.pod", "PodTemplateStrategy"),
    (_RBAC, "roles"): ("rbac.role", "RoleStrategy"),
    (_RBAC, "clusterroles"): ("rbac.role", "RoleStrategy"),
    (_RBAC, "rolebindings"): ("rbac.binding", "BindingStrategy"),
    (_RBAC, "clusterrolebindings"): ("rbac.binding", "BindingStrategy"),
}


def strategy_for(resource: ResourceInfo, environment: Environment) -> Strategy:
    """A new strategy for the resource."""
    entry = STRATEGIES.get((resource.group, resource.plural))
    if entry is None:
        return Strategy(resource, environment)
    module, name = entry
    strategy_class = getattr(import_module(f"tiphys_apiserver.registry.{module}"), name)
    return cast(Strategy, strategy_class(resource, environment))
