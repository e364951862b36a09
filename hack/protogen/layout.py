"""Which file a package, or a message of a package that is split, is written to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hack.protogen.facts import Package, Record

_FIXED = {
    "k8s.io.apimachinery.pkg.apis.meta.v1": "api/meta/v1/meta",
    "k8s.io.apimachinery.pkg.runtime": "api/runtime/runtime",
    "k8s.io.apimachinery.pkg.runtime.schema": "api/runtime/schema",
    "k8s.io.apimachinery.pkg.util.intstr": "api/intstr/intstr",
    "k8s.io.apimachinery.pkg.api.resource": "api/resource/quantity",
    "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1": "api/apiextensions/v1/apiextensions",
    "k8s.io.kube_aggregator.pkg.apis.apiregistration.v1": "api/apiregistration/v1/apiregistration",
    "k8s.io.metrics.pkg.apis.metrics.v1beta1": "api/metrics/v1beta1/metrics",
    "runtime.v1": "thirdparty/cri/v1/api",
    "csi.v1": "thirdparty/csi/v1/csi",
    "v1beta1": "thirdparty/deviceplugin/v1beta1/api",
    "v1": "thirdparty/podresources/v1/api",
    "pluginregistration": "thirdparty/pluginregistration/v1/api",
    "etcdserverpb": "thirdparty/etcd/rpc",
    "mvccpb": "thirdparty/etcd/kv",
    "authpb": "thirdparty/etcd/auth",
    "containerd.services.events.v1": "thirdparty/containerd/events",
    "containerd.events": "thirdparty/containerd/task_events",
    "containerd.types": "thirdparty/containerd/types",
    "containerd.services.images.v1": "thirdparty/containerd/images",
    "containerd.services.content.v1": "thirdparty/containerd/content",
    "containerd.services.leases.v1": "thirdparty/containerd/leases",
    "openapi.v2": "thirdparty/openapi/v2/openapi",
}

CORE = "k8s.io.api.core.v1"

# Files of core/v1 in the order in which they may import each other, each with the messages it is about;
# what these need and no earlier file has goes with them.
CORE_FILES: Mapping[str, tuple[str, ...]] = {
    "reference": (
        "ObjectReference",
        "LocalObjectReference",
        "SecretReference",
        "TypedLocalObjectReference",
        "TypedObjectReference",
    ),
    "scheduling": (
        "Affinity",
        "Taint",
        "Toleration",
        "TopologySpreadConstraint",
        "TopologySelectorTerm",
        "AvoidPods",
        "PreferAvoidPodsEntry",
        "PodSignature",
    ),
    "persistent_volume_claim": (
        "PersistentVolumeClaim",
        "PersistentVolumeClaimList",
        "PersistentVolumeClaimTemplate",
    ),
    "volume": ("Volume", "VolumeMount", "VolumeDevice"),
    "container": ("Container", "EphemeralContainer", "ContainerStatus"),
    "pod": ("Pod", "PodList", "PodTemplate", "PodTemplateList", "PodStatusResult"),
    "pod_options": (
        "PodLogOptions",
        "PodExecOptions",
        "PodAttachOptions",
        "PodPortForwardOptions",
        "PodProxyOptions",
        "NodeProxyOptions",
        "ServiceProxyOptions",
        "RangeAllocation",
        "SerializedReference",
    ),
    "persistent_volume": ("PersistentVolume", "PersistentVolumeList"),
    "replication_controller": ("ReplicationController", "ReplicationControllerList"),
    "service": ("Service", "ServiceList"),
    "endpoints": ("Endpoints", "EndpointsList"),
    "node": ("Node", "NodeList"),
    "namespace": ("Namespace", "NamespaceList"),
    "config_map": ("ConfigMap", "ConfigMapList"),
    "secret": ("Secret", "SecretList"),
    "service_account": ("ServiceAccount", "ServiceAccountList"),
    "event": ("Event", "EventList"),
    "limit_range": ("LimitRange", "LimitRangeList"),
    "resource_quota": ("ResourceQuota", "ResourceQuotaList"),
    "binding": ("Binding",),
    "component_status": ("ComponentStatus", "ComponentStatusList"),
}


@dataclass(frozen=True, slots=True)
class File:
    """One .proto file to write: path below protos/tiphys, its package and its messages in order."""

    path: str
    package: Package
    messages: tuple[str, ...]


def group_folder(package: str) -> str:
    """Folder of a Kubernetes package: k8s.io.api.apps.v1 -> apps/v1."""
    return (
        _FIXED[package].removeprefix("api/").rpartition("/")[0]
        if package in _FIXED
        else package.split(".", 3)[3].replace(".", "/")
    )


def path_of(package: str) -> str:
    """File of a package that is not split, without its ending."""
    if package in _FIXED:
        return _FIXED[package]
    group, version = package.split(".")[3:5]
    return f"api/{group}/{version}/{group}"


def local_types(package: Package, message: str) -> Iterator[str]:
    """Top-level messages of the same package that a message's fields name."""
    own = package.name + "."
    for fact in _fields(package, message):
        kind = fact["map"]["value"] if fact["type"] == "map" else fact["type"]
        name = kind.removeprefix("enum:").removeprefix(own)
        if kind.removeprefix("enum:").startswith(own) and name.partition(".")[0] in package.messages:
            yield name.partition(".")[0]


def _fields(package: Package, message: str) -> list[Record]:
    nested = [m for m in package.messages if m == message or m.startswith(message + ".")]
    facts = [f for m in nested for f in package.messages[m].get("fields", [])]
    struct = package.struct(message)
    if struct is None:
        return facts
    order = {f["pb"]: i for i, f in enumerate(struct["fields"]) if "pb" in f}
    return sorted(facts, key=lambda f: order.get(f["n"], len(order) + f["n"]))


def reading_order(package: Package, roots: tuple[str, ...], taken: set[str]) -> tuple[str, ...]:
    """The roots, and below each what it needs, in the order in which a reader meets them."""
    found: list[str] = []

    def visit(name: str) -> None:
        if name in taken:
            return
        taken.add(name)
        found.append(name)
        for needed in local_types(package, name):
            visit(needed)

    for root in roots:
        visit(root)
    return tuple(found)


def _roots(package: Package) -> tuple[str, ...]:
    """Messages from which reading starts: bodies of calls, objects with their lists, what nothing refers to."""
    tops = [m for m in package.messages if "." not in m]
    own = package.name + "."
    calls = [
        body.removeprefix(own)
        for service in package.services.values()
        for method in service["methods"]
        for body in (method["input"], method["output"])
        if body.startswith(own)
    ]
    objects = [m for m in tops if (package.struct(m) or {}).get("role") == "object"]
    paired = [name for m in objects for name in (m, m + "List") if name in package.messages]
    used = {t for m in tops for t in local_types(package, m) if t != m}
    return tuple(dict.fromkeys([*calls, *paired, *(m for m in tops if m not in used), *tops]))


def files_of(package: Package) -> list[File]:
    """The files of a package."""
    if package.name != CORE:
        return [File(path_of(package.name), package, reading_order(package, _roots(package), set()))]
    taken: set[str] = set()
    split = {
        name: list(reading_order(package, tuple(m for m in roots if m in package.messages), taken))
        for name, roots in CORE_FILES.items()
    }
    left = [m for m in package.messages if m not in taken]
    split["pod_options"] += reading_order(package, tuple(left), taken)
    return [File(f"api/core/v1/{name}", package, tuple(names)) for name, names in split.items()]
