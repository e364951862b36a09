"""What a pod may know of itself: fields and resources, for variables and volumes. Pure.

Source: the documented fields of the downward API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.volume_pb2 import ResourceFieldSelector
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.pod_spec import find_container

_SUBSCRIPT = re.compile(r"^(metadata\.(?:labels|annotations))\['(.+)'\]$")


class DownwardError(ValueError):
    """The field or resource can't be told."""


def field_value(pod: Pod, path: str, *, pod_ips: Sequence[str] = (), host_ips: Sequence[str] = ()) -> str:
    """The value of a field, as text. Raises DownwardError for a path that is not supported."""
    subscript = _SUBSCRIPT.match(path)
    if subscript is not None:
        source = pod.metadata.labels if subscript[1] == "metadata.labels" else pod.metadata.annotations
        return source.get(subscript[2], "")
    match path:
        case "metadata.name":
            return pod.metadata.name
        case "metadata.namespace":
            return pod.metadata.namespace
        case "metadata.uid":
            return pod.metadata.uid
        case "metadata.labels":
            return _format_map(pod.metadata.labels)
        case "metadata.annotations":
            return _format_map(pod.metadata.annotations)
        case "spec.nodeName":
            return pod.spec.nodeName
        case "spec.serviceAccountName":
            return pod.spec.serviceAccountName
        case "status.hostIP":
            return host_ips[0] if host_ips else ""
        case "status.hostIPs":
            return ",".join(host_ips)
        case "status.podIP":
            return pod_ips[0] if pod_ips else ""
        case "status.podIPs":
            return ",".join(pod_ips)
    raise DownwardError(f"unsupported fieldPath: {path}")


def _format_map(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(values.items()))


def _quoted(value: str) -> str:
    """A Go-quoted string."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char, char) for char in value) + '"'


def resource_value(
    pod: Pod, container: Container, selector: ResourceFieldSelector, allocatable: Mapping[str, Quantity]
) -> str:
    """The amount in units of the divisor, rounded up; a limit that is not set is what the node has.

    Raises DownwardError for a resource or container that there is not.
    """
    if selector.containerName:
        found = find_container(pod, selector.containerName)
        if found is None:
            raise DownwardError(f"container {selector.containerName} not found")
        container = found.container
    kind, _, name = selector.resource.partition(".")
    if kind not in ("limits", "requests") or not name:
        raise DownwardError(f"unsupported container resource : {selector.resource}")
    amounts = container.resources.limits if kind == "limits" else container.resources.requests
    if name in amounts and amounts[name].string:
        amount = Quantity.parse(amounts[name].string)
    elif kind == "limits":
        amount = allocatable.get(name, Quantity.of(0))
    else:
        amount = Quantity.of(0)
    divisor = Quantity.parse(selector.divisor.string) if selector.divisor.string else Quantity.of(0)
    unit = divisor.nanos or Quantity.of(1).nanos
    return str(-(-amount.nanos // unit))
