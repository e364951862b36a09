"""What callers are warned of: fields that are deprecated, or do not do what their author may think. Pure.

Source: Kubernetes pkg/api/pod/warnings.go, and the strategies' WarningsOnCreate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from tiphys_apimachinery.quantity import Quantity, QuantityError

Warn = Callable[[Any], Iterator[str]]
_LABELS: Final[Mapping[str, str]] = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_VOLUMES: Final[Mapping[str, str]] = {
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_INGRESS_CLASS: Final = "kubernetes.io/ingress.class"
_BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"


def pod_warnings(spec: Any, path: str) -> Iterator[str]:
    """Of a pod's spec."""
    for key in spec.nodeSelector:
        if key in _LABELS:
            yield f"{path}.nodeSelector[{key}]: {_LABELS[key]}"
    if spec.terminationGracePeriodSeconds < 0:
        yield (
            f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        )
    for index, reference in enumerate(spec.imagePullSecrets):
        if not reference.name:
            yield f'{path}.imagePullSecrets[{index}].name: invalid empty name ""'
    for index, constraint in enumerate(spec.topologySpreadConstraints):
        where = f"{path}.topologySpreadConstraints[{index}]"
        if constraint.topologyKey in _LABELS:
            yield f"{where}.topologyKey: {constraint.topologyKey} is {_LABELS[constraint.topologyKey]}"
        if not constraint.HasField("labelSelector"):
            yield f"{where}.labelSelector: a null labelSelector results in matching no pod"
    for index, volume in enumerate(spec.volumes):
        for name, why in _VOLUMES.items():
            if volume.volumeSource.HasField(name):
                yield f"{path}.volumes[{index}].{name}: {why}"
    for member in ("initContainers", "containers"):
        for index, container in enumerate(getattr(spec, member)):
            yield from _container_warnings(container, f"{path}.{member}[{index}]")


def _container_warnings(container: Any, path: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, variable in enumerate(container.env):
        if variable.name in seen:
            why = f'hides previous definition of "{variable.name}", which may be dropped when using apply'
            yield f"{path}.env[{index}]: {why}"
        seen.add(variable.name)
    ports: dict[tuple[int, str, str, int], int] = {}
    for index, port in enumerate(container.ports):
        key = (port.containerPort, port.protocol or "TCP", port.hostIP, port.hostPort)
        if key in ports:
            yield f"{path}.ports[{index}]: duplicate port definition with {path}.ports[{ports[key]}]"
        ports.setdefault(key, index)
    for member in ("limits", "requests"):
        for name in ("memory", "ephemeral-storage"):
            amounts = getattr(container.resources, member)
            if name in amounts and _is_fractional(amounts[name].string):
                text = amounts[name].string
                why = f'fractional byte value "{text}" is invalid, must be an integer'
                yield f"{path}.resources.{member}[{name}]: {why}"


def _is_fractional(text: str) -> bool:
    try:
        return bool(Quantity.parse(text).nanos % 10**9)
    except QuantityError:
        return False


def _of_pod(pod: Any) -> Iterator[str]:
    # Who wrote the template was warned of it.
    if not pod.metadata.ownerReferences:
        yield from pod_warnings(pod.spec, "spec")


def _of_template(obj: Any, *, path: tuple[str, ...] = ("spec",)) -> Iterator[str]:
    if obj.metadata.ownerReferences:
        return
    for name in path:
        obj = getattr(obj, name)
    yield from pod_warnings(obj.template.spec, ".".join((*path, "template", "spec")))


def _of_ingress(ingress: Any) -> Iterator[str]:
    if _INGRESS_CLASS in ingress.metadata.annotations:
        yield f"annotation \"{_INGRESS_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"


def _of_volume(volume: Any) -> Iterator[str]:
    if _BETA_CLASS in volume.metadata.annotations:
        yield f'metadata.annotations[{_BETA_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'
    if getattr(volume.spec, "persistentVolumeReclaimPolicy", "") == "Recycle":
        yield (
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended"
            " approach is to use dynamic provisioning."
        )


def finalizer_warnings(obj: Any) -> Iterator[str]:
    """Of an object whose finalizers everybody may choose."""
    for finalizer in obj.metadata.finalizers:
        if "/" not in finalizer:
            yield (
                f'metadata.finalizers: "{finalizer}": prefer a domain-qualified finalizer name including a path (/) to'
                " avoid accidental conflicts with other finalizer writers"
            )


# By group and plural.
WARNINGS: Final[Mapping[tuple[str, str], Warn]] = {
    ("", "pods"): _of_pod,
    ("", "podtemplates"): partial(_of_template, path=()),
    ("", "replicationcontrollers"): _of_template,
    ("", "persistentvolumes"): _of_volume,
    ("", "persistentvolumeclaims"): _of_volume,
    ("apps", "daemonsets"): _of_template,
    ("apps", "deployments"): _of_template,
    ("apps", "replicasets"): _of_template,
    ("apps", "statefulsets"): _of_template,
    ("batch", "jobs"): _of_template,
    ("batch", "cronjobs"): partial(_of_template, path=("spec", "jobTemplate", "spec")),
    ("networking.k8s.io", "ingresses"): _of_ingress,
}
