"""Holds pods and claims to the LimitRanges of their namespace, and fills what they leave open.

Source: Kubernetes plugin/pkg/admission/limitranger.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tiphys.api.core.v1.limit_range_pb2 import LimitRange
from tiphys_apimachinery.pod_resources import Amounts, pod_amounts, read_amounts
from tiphys_apimachinery.quantity import Quantity
from tiphys_apiserver.admission.by_namespace import ByNamespace
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.registry.objects import ObjectAccess

ANNOTATION = "kubernetes.io/limit-ranger"
_POD, _CONTAINER, _CLAIM = "Pod", "Container", "PersistentVolumeClaim"


class LimitRanger:
    """Fills in its mutating pass and refuses in its validating one."""

    name = "LimitRanger"

    def __init__(self, objects: ObjectAccess) -> None:
        self._ranges = ByNamespace(objects, LimitRange)

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New pods and resized ones, and claims that are made or changed."""
        if attributes.resource.group or not _is_write(attributes):
            return False
        return attributes.resource.plural in ("pods", "persistentvolumeclaims")

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Give containers the defaults of their namespace."""
        if attributes.resource.plural != "pods" or attributes.subresource:
            return
        pod: Any = attributes.object
        filled = []
        for found in await self._ranges.of(attributes.namespace):
            for item in found.spec.limits:
                if item.type == _CONTAINER:
                    filled += list(_fill(pod, item))
        if filled:
            pod.metadata.annotations[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(filled)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden with everything that is too little or too much."""
        faults = []
        for found in await self._ranges.of(attributes.namespace):
            for item in found.spec.limits:
                faults += list(_faults(attributes.object, item))
        if faults:
            raise refuse(attributes, faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")


def _is_write(attributes: AdmissionAttributes) -> bool:
    if attributes.operation is Operation.CREATE:
        return not attributes.subresource
    changeable = {"persistentvolumeclaims": "", "pods": "resize"}
    subresource = changeable.get(attributes.resource.plural)
    return attributes.operation is Operation.UPDATE and attributes.subresource == subresource


def defaults_of(item: Any) -> tuple[Amounts, Amounts]:
    """The requests and limits that an item gives to containers.

    A limit that is not given is the most allowed; a request the limit, or the least allowed.
    """
    limits = read_amounts(item.max) | read_amounts(item.default)
    requests = read_amounts(item.min) | limits | read_amounts(item.defaultRequest)
    return requests, limits


def _fill(pod: Any, item: Any) -> Iterator[str]:
    """Fill what a pod's containers leave open; tell what was done."""
    requests, limits = defaults_of(item)
    for kind, containers in (("container", pod.spec.containers), ("init container", pod.spec.initContainers)):
        for container in containers:
            resources = container.resources
            for word, values, defaults in (
                ("request", resources.requests, requests),
                ("limit", resources.limits, limits),
            ):
                missing = sorted(name for name in defaults if name not in values)
                for name in missing:
                    values[name].string = str(defaults[name])
                if missing:
                    yield f"{', '.join(missing)} {word} for {kind} {container.name}"


def _faults(obj: Any, item: Any) -> Iterator[str]:
    if item.type == _CLAIM and obj.DESCRIPTOR.name == _CLAIM:
        requests = read_amounts(obj.spec.resources.requests)
        yield from _bounds(item, requests, {}, _CLAIM)
    elif item.type == _CONTAINER and obj.DESCRIPTOR.name == _POD:
        for container in (*obj.spec.containers, *obj.spec.initContainers):
            resources = container.resources
            yield from _bounds(item, read_amounts(resources.requests), read_amounts(resources.limits), _CONTAINER)
    elif item.type == _POD and obj.DESCRIPTOR.name == _POD:
        yield from _bounds(item, pod_amounts(obj.spec, "requests"), pod_amounts(obj.spec, "limits"), _POD)


def _bounds(item: Any, requests: Amounts, limits: Amounts, kind: str) -> Iterator[str]:
    for name, least in sorted(read_amounts(item.min).items()):
        what = f"minimum {name} usage per {kind} is {least}"
        if name not in requests:
            yield f"{what}.  No request is specified"
        else:
            yield from _either(what, name, (requests, limits), partial(operator.gt, least))
    for name, largest in sorted(read_amounts(item.max).items()):
        what = f"maximum {name} usage per {kind} is {largest}"
        if kind == _CLAIM:
            yield from _either(what, name, (requests, {}), partial(operator.lt, largest))
        elif name not in limits:
            yield f"{what}.  No limit is specified"
        else:
            yield from _either(what, name, (requests, limits), partial(operator.lt, largest))
    for name, ratio in sorted(read_amounts(item.maxLimitRequestRatio).items()):
        yield from _ratio(name, ratio, requests, limits, kind=kind)


def _either(
    what: str, name: str, amounts: tuple[Amounts, Amounts], is_bad: Callable[[Quantity], bool]
) -> Iterator[str]:
    requests, limits = amounts
    if name in limits and is_bad(limits[name]):
        yield f"{what}, but limit is {limits[name]}"
    elif name in requests and is_bad(requests[name]):
        yield f"{what}, but request is {requests[name]}"


def _ratio(name: str, ratio: Quantity, requests: Amounts, limits: Amounts, *, kind: str) -> Iterator[str]:
    what = f"{name} max limit to request ratio per {kind} is {ratio}"
    if not requests.get(name):
        yield f"{what}, but no request is specified or request is 0"
    elif not limits.get(name):
        yield f"{what}, but no limit is specified or limit is 0"
    else:
        given = limits[name].nanos / requests[name].nanos
        if limits[name].nanos * 10**9 > ratio.nanos * requests[name].nanos:
            yield f"{what}, but provided ratio is {given:.6f}"
