"""Services: their defaults, their addresses and node ports, and what stays when they change."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError, Invalid
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.registry.core.service_allocation import (
    EXTERNAL_NAME,
    NODE_PORT_TYPES,
    AllocationError,
    ServiceResources,
    held_by,
    wants_health_port,
    wants_node_ports,
)
from tiphys_apiserver.registry.core.service_validation import validate_service, validate_service_update
from tiphys_apiserver.registry.strategy import Environment, Finish, Strategy, WriteContext

_AFFINITY_TIMEOUT_S = 10800


class ServiceStrategy(Strategy):
    """The rules of services. Holds which addresses and ports are taken, rebuilt at start from what is stored."""

    def __init__(self, resource: ResourceInfo, environment: Environment) -> None:
        super().__init__(resource, environment)
        self._resources = ServiceResources(
            environment.service_cluster_ip_range, environment.service_node_port_range, environment.rng
        )

    async def start(self) -> None:
        """Count what stored services hold as taken."""
        for service in await self.environment.objects.list(Service):
            self._resources.adopt(service)

    def validate_name(self, name: str) -> list[str]:
        """A DNS label that begins with a letter: it becomes part of names of variables."""
        return validation.is_dns1035_label(name)

    def apply_defaults(self, obj: Message) -> None:
        """The schema's defaults, then those that follow from the type."""
        super().apply_defaults(obj)
        service: Any = obj
        default_service(service.spec)

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """One address in either form is both; the family is the cluster's."""
        super().prepare_for_create(ctx, obj)
        service: Any = obj
        _normalize_addresses(service.spec)
        self._default_families(service.spec)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Every fault of a new service, but for what is already taken."""
        return super().validate(ctx, obj) + list(validate_service(obj, self._resources.ip_family))

    async def begin_create(self, ctx: WriteContext, obj: Message) -> Finish | None:
        """Reserve address and node ports."""
        return self._reserve(obj, None)

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Keep what was allocated where the caller does not speak of it."""
        super().prepare_for_update(ctx, new, old)
        _drop_by_type(new.spec, old.spec)
        _keep_allocated(new.spec, old.spec)
        _normalize_addresses(new.spec)
        self._default_families(new.spec)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Every fault of a changed service."""
        errors = super().validate_update(ctx, new, old)
        return [
            *errors,
            *validate_service_update(new, old),
            *validate_service(new, self._resources.ip_family),
        ]

    async def begin_update(self, ctx: WriteContext, new: Any, old: Any) -> Finish | None:
        """Reserve what is new; release after the write what is no longer used."""
        return self._reserve(new, old)

    async def after_delete(self, ctx: WriteContext, obj: Any) -> None:
        """Give back what it held."""
        self._resources.release(*held_by(obj))

    def _reserve(self, new: Any, old: Any | None) -> Finish:
        before = held_by(old) if old is not None else (frozenset(), frozenset())
        try:
            taken = self._resources.fill(new, before)
        except AllocationError as err:
            raise Invalid.of("Service", new.metadata.name, [err.error]) from err
        after = held_by(new)

        async def finish(stored: bool) -> None:
            if stored:
                self._resources.release(before[0] - after[0], before[1] - after[1])
            else:
                taken.release()

        return finish

    def _default_families(self, spec: Any) -> None:
        if spec.type == EXTERNAL_NAME:
            return
        if not spec.HasField("ipFamilyPolicy"):
            spec.ipFamilyPolicy = "SingleStack"
        if not spec.ipFamilies:
            spec.ipFamilies.append(self._resources.ip_family)


def default_service(spec: Any) -> None:
    """Fill what follows from type and ports."""
    if not spec.type:
        spec.type = "ClusterIP"
    if not spec.sessionAffinity:
        spec.sessionAffinity = "None"
    if spec.sessionAffinity == "None":
        spec.ClearField("sessionAffinityConfig")
    elif not spec.sessionAffinityConfig.clientIP.HasField("timeoutSeconds"):
        spec.sessionAffinityConfig.clientIP.timeoutSeconds = _AFFINITY_TIMEOUT_S
    for port in spec.ports:
        target = port.targetPort
        if not target.intVal and not target.strVal:
            target.type = 0
            target.intVal = port.port
    external = spec.type in NODE_PORT_TYPES or (spec.externalIPs and spec.type == "ClusterIP")
    if external and not spec.externalTrafficPolicy:
        spec.externalTrafficPolicy = "Cluster"
    if spec.type != EXTERNAL_NAME and not spec.HasField("internalTrafficPolicy"):
        spec.internalTrafficPolicy = "Cluster"
    if spec.type == "LoadBalancer" and not spec.HasField("allocateLoadBalancerNodePorts"):
        spec.allocateLoadBalancerNodePorts = True


def _normalize_addresses(spec: Any) -> None:
    """clusterIP and the first of clusterIPs are the same; either may be given."""
    if spec.clusterIP and not spec.clusterIPs:
        spec.clusterIPs.append(spec.clusterIP)
    elif spec.clusterIPs and not spec.clusterIP:
        spec.clusterIP = spec.clusterIPs[0]


def _drop_by_type(new: Any, old: Any) -> None:
    """Clear what the new type does not have, where the caller left it as it was.

    Source: pkg/registry/core/service/strategy.go, dropTypeDependentFields.
    """
    if new.type == EXTERNAL_NAME and old.type != EXTERNAL_NAME:
        if new.clusterIP in ("", old.clusterIP):
            new.ClearField("clusterIP")
            new.ClearField("clusterIPs")
        for name in ("ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            new.ClearField(name)
    if wants_node_ports(old) and not wants_node_ports(new):
        before = {port.nodePort for port in old.ports}
        for port in new.ports:
            if port.nodePort in before:
                port.ClearField("nodePort")
    if wants_health_port(old) and not wants_health_port(new) and new.healthCheckNodePort == old.healthCheckNodePort:
        new.ClearField("healthCheckNodePort")
    external = new.type in NODE_PORT_TYPES or (new.externalIPs and new.type != EXTERNAL_NAME)
    was_external = old.type in NODE_PORT_TYPES
    if was_external and not external and new.externalTrafficPolicy == old.externalTrafficPolicy:
        new.ClearField("externalTrafficPolicy")
    if old.type == "LoadBalancer" and new.type != "LoadBalancer":
        for name in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if getattr(new, name) == getattr(old, name):
                new.ClearField(name)


def _keep_allocated(new: Any, old: Any) -> None:
    """Take over from the old service the address and the node ports that the new one leaves open.

    Source: pkg/registry/core/service/storage, patchAllocatedValues: an update made from a manifest names neither.
    """
    if EXTERNAL_NAME not in (new.type, old.type):
        if not new.clusterIP and not new.clusterIPs:
            new.clusterIP = old.clusterIP
            new.clusterIPs.extend(old.clusterIPs)
        elif new.clusterIP != old.clusterIP and list(new.clusterIPs) == list(old.clusterIPs):
            # Only the old form was changed: the list follows, and validation judges the change.
            del new.clusterIPs[:]
            if new.clusterIP:
                new.clusterIPs.append(new.clusterIP)
        elif new.clusterIP == old.clusterIP and new.clusterIPs and new.clusterIPs[0] != new.clusterIP:
            new.clusterIP = new.clusterIPs[0]
        if not new.ipFamilies and new.clusterIP == old.clusterIP:
            new.ipFamilies.extend(old.ipFamilies)
        if not new.HasField("ipFamilyPolicy") and old.HasField("ipFamilyPolicy"):
            new.ipFamilyPolicy = old.ipFamilyPolicy
    if wants_node_ports(new) and wants_node_ports(old):
        known = {(port.protocol, port.port): port.nodePort for port in old.ports}
        used = {port.nodePort for port in new.ports if port.nodePort}
        for port in new.ports:
            kept = known.get((port.protocol, port.port), 0)
            if not port.nodePort and kept and kept not in used:
                port.nodePort = kept
                used.add(kept)
    if wants_health_port(new) and wants_health_port(old) and not new.healthCheckNodePort:
        new.healthCheckNodePort = old.healthCheckNodePort
