"""What a Service means for a pod behind it: which address and which port, whether it is ready; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tiphys.api.core.v1 import reference_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.labels import Selector
from tiphys_apimachinery.meta import join_key
from tiphys_controller_manager.pods import PodView

IPV4: Final = "IPv4"
IPV6: Final = "IPv6"
HEADLESS_LABEL: Final = "service.kubernetes.io/headless"
SERVICE_NAME: Final = "kubernetes.io/service-name"
SERVICE_INDEX: Final = "service"

Labels = Mapping[str, str]


def has_managed_backends(service: service_pb2.Service) -> bool:
    """Whether its endpoints follow from a selector."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def is_headless(service: service_pb2.Service) -> bool:
    """Whether clients get the pods' addresses instead of one of the Service."""
    return service.spec.clusterIP == "None"


def selector_of(service: service_pb2.Service) -> Selector:
    """The pods of a Service that has a selector."""
    return Selector.from_set(dict(service.spec.selector))


def families(service: service_pb2.Service) -> tuple[str, ...]:
    """The address families of a Service."""
    if service.spec.ipFamilies:
        return tuple(service.spec.ipFamilies)
    return (IPV6,) if ":" in service.spec.clusterIP else (IPV4,)


def address(pod: PodView, family: str) -> str | None:
    """The pod's address of a family."""
    # The colon tells the families apart: parsing each address took a twentieth of what rollouts cost.
    return next((ip for ip in pod.ips if (":" in ip) == (family == IPV6)), None)


def target_port(pod: PodView, port: service_pb2.ServicePort) -> int | None:
    """The pod's port behind a port of the Service; None where it has none of that name and protocol."""
    target = port.targetPort
    if target.type == 0:
        return int(target.intVal) or int(port.port)
    protocol = port.protocol or "TCP"
    for named in pod.ports:
        if named.name == target.strVal and named.protocol == protocol:
            return named.port
    return None


def reference(pod: PodView) -> reference_pb2.ObjectReference:
    """How an endpoint names its pod."""
    return reference_pb2.ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.uid)


def hostname(pod: PodView, service: service_pb2.Service) -> str:
    """The name by which DNS knows the pod under the Service; empty if it has none."""
    return pod.hostname if pod.subdomain == service.metadata.name else ""


def changed_backends(old: Any, new: Any) -> bool:
    """Whether a change of a pod can matter to a Service; both are pod messages, None at begin and end."""
    if old is None or new is None:
        return True
    before, after = old.metadata, new.metadata
    return bool(
        before.labels != after.labels
        or before.HasField("deletionTimestamp") != after.HasField("deletionTimestamp")
        or old.spec.nodeName != new.spec.nodeName
        or old.status.phase != new.status.phase
        or _readiness(old) != _readiness(new)
        or old.status.podIP != new.status.podIP
        or list(old.status.podIPs) != list(new.status.podIPs)
    )


def service_view(service: service_pb2.Service) -> Labels:
    """Projection of a Service: the labels that its pods have; none if its endpoints do not follow from pods."""
    return dict(service.spec.selector) if has_managed_backends(service) else {}


def services_of(services: Iterable[tuple[str, Labels]], old: Any, new: Any) -> list[str]:
    """The keys of Services, as projections, that select a pod before or after a change; the pods are messages."""
    labels = [pod.metadata.labels for pod in (old, new) if pod is not None]
    return [
        key
        for key, wanted in services
        if wanted and any(all(one.get(name) == value for name, value in wanted.items()) for one in labels)
    ]


def slice_keys(item: discovery_pb2.EndpointSlice) -> Iterable[str]:
    """Index function of EndpointSlices: the key of the Service that they are of."""
    name = item.metadata.labels.get(SERVICE_NAME)
    return (join_key(item.metadata.namespace, name),) if name else ()


def _readiness(pod: Any) -> str:
    return next((condition.status for condition in pod.status.conditions if condition.type == "Ready"), "")
