"""What a resize may change in a pod that exists: cpu and memory of containers and sidecars, and nothing else.

Source: Kubernetes pkg/apis/core/validation (ValidatePodResize) and pkg/registry/core/pod (podResizeStrategy).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys.api.core.v1.pod_pb2 import PodSpec
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.quantity import Quantity
from tiphys_apiserver.registry.core.qos import qos_class

RESIZABLE = ("cpu", "memory")
_MIRROR = "kubernetes.io/config.mirror"
_ENDED = ("Succeeded", "Failed")
_LISTS = ("containers", "initContainers")
_AMOUNTS = ("requests", "limits")


def take_resources(wanted: Any, pod: Any) -> None:
    """Put the resources of wanted's containers into pod, where both have the same containers in the same order.

    Otherwise pod gets wanted's containers as they are, for the validation to name what is wrong with them.
    """
    for name in _LISTS:
        ours, theirs = getattr(pod.spec, name), getattr(wanted.spec, name)
        if [container.name for container in ours] != [container.name for container in theirs]:
            pod.spec.ClearField(name)
            getattr(pod.spec, name).MergeFrom(theirs)
            continue
        for mine, other in zip(ours, theirs, strict=True):
            mine.resources.CopyFrom(other.resources)
    default_policies(pod.spec)


def validate_resize(new: Any, old: Any) -> list[FieldError]:
    """Faults of a change of resources."""
    refused = _refusal(old)
    if refused is not None:
        return [refused]
    errors: list[FieldError] = []
    if qos_class(new) != (old.status.qosClass or qos_class(old)):
        errors.append(
            FieldError.invalid("spec", new.status.qosClass, "Pod QOS Class may not change as a result of resizing")
        )
    if not _is_supported(old):
        errors.append(FieldError.forbidden("spec", "Pod running on node without support for resize"))
    order = [FieldError.forbidden(f"spec.{name}", text) for name, text in _order_faults(new.spec, old.spec)]
    if order:
        return errors + order
    errors += _removals(new.spec, old.spec)
    munged, before = PodSpec(), PodSpec()
    munged.CopyFrom(new.spec)
    before.CopyFrom(old.spec)
    _put_back(munged, before)
    # What a container newly asks for brings its policy along, and one from before this was a default has none.
    for spec in (munged, before):
        for container in (*spec.containers, *spec.initContainers):
            container.ClearField("resizePolicy")
    if munged != before:
        errors.append(FieldError.forbidden("spec", "only cpu and memory resources are mutable"))
    return errors


def _refusal(pod: Any) -> FieldError | None:
    if _MIRROR in pod.metadata.annotations:
        return FieldError.forbidden("", "static pods cannot be resized")
    if pod.spec.os.name == "windows":
        return FieldError.forbidden("", "windows pods cannot be resized")
    if pod.status.phase in _ENDED:
        return FieldError.forbidden("", "pods that have ended cannot be resized")
    return None


def _is_supported(pod: Any) -> bool:
    """A kubelet that can resize tells what a running container has."""
    running = (status for status in pod.status.containerStatuses if status.state.HasField("running"))
    first = next(running, None)
    return first is None or first.HasField("resources")


def _order_faults(new: Any, old: Any) -> Iterator[tuple[str, str]]:
    for name in _LISTS:
        before = [container.name for container in getattr(old, name)]
        after = [container.name for container in getattr(new, name)]
        if len(before) != len(after):
            yield name, "containers may not be added or removed on resize"
        elif before != after:
            yield name, "containers may not be renamed or reordered on resize"


def _removals(new: Any, old: Any) -> Iterator[FieldError]:
    """Requests and limits may come and change, but a container that has one keeps one."""
    for name in _LISTS:
        for index, (after, before) in enumerate(zip(getattr(new, name), getattr(old, name), strict=True)):
            for member in _AMOUNTS:
                had, has = getattr(before.resources, member), getattr(after.resources, member)
                for resource in RESIZABLE:
                    if resource in had and resource not in has:
                        path = f"spec.{name}[{index}].resources.{member}"
                        yield FieldError.forbidden(path, f"resource {member} cannot be removed")


def _put_back(spec: Any, old: Any) -> None:
    """Undo what a resize may do, so that what is left must be equal."""
    for name in _LISTS:
        for after, before in zip(getattr(spec, name), getattr(old, name), strict=True):
            if name == "initContainers" and before.restartPolicy != "Always":
                continue
            for member in _AMOUNTS:
                _put_back_amounts(getattr(after.resources, member), getattr(before.resources, member))


def _put_back_amounts(after: Any, before: Any) -> None:
    for resource in (*RESIZABLE, *after):
        if resource in RESIZABLE:
            if resource in before:
                after[resource].CopyFrom(before[resource])
            elif resource in after:
                del after[resource]
        elif resource in before and _same(after[resource], before[resource]):
            after[resource].CopyFrom(before[resource])


def _same(one: Any, other: Any) -> bool:
    return Quantity.parse(one.string or "0") == Quantity.parse(other.string or "0")


def validate_policies(spec: Any, path: str) -> Iterator[FieldError]:
    """Faults of resizePolicy in a pod's containers."""
    for name in _LISTS:
        for index, container in enumerate(getattr(spec, name)):
            where = f"{path}.{name}[{index}].resizePolicy"
            if container.resizePolicy and name == "initContainers" and container.restartPolicy != "Always":
                yield FieldError.forbidden(where, "may not be set for init containers without restartPolicy=Always")
                continue
            seen: set[str] = set()
            for number, policy in enumerate(container.resizePolicy):
                if policy.resourceName in seen:
                    yield FieldError.duplicate(f"{where}[{number}].resourceName", policy.resourceName)
                seen.add(policy.resourceName)
                if spec.restartPolicy == "Never" and policy.restartPolicy == "RestartContainer":
                    why = "must be 'NotRequired' when `restartPolicy` is 'Never'"
                    yield FieldError.invalid(f"{where}[{number}].restartPolicy", policy.restartPolicy, why)


def default_policies(spec: Any) -> None:
    """Cpu and memory that a container asks for or limits are resized without a restart, unless it says otherwise."""
    sidecars = (container for container in spec.initContainers if container.restartPolicy == "Always")
    for container in (*spec.containers, *sidecars):
        said = {policy.resourceName for policy in container.resizePolicy}
        for resource in RESIZABLE:
            resources = container.resources
            if resource not in said and (resource in resources.requests or resource in resources.limits):
                container.resizePolicy.add(resourceName=resource, restartPolicy="NotRequired")
