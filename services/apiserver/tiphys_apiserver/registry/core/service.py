"""Services: their defaults, their addresses and node ports, and what stays when they change."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError, Invalid, NotFound
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.registry.core.service_allocation import (
    EXTERNAL_NAME,
    NODE_PORT_TYPES,
    AllocationError,
    Reservations,
    ServiceResources,
    held_by,
    items_of,
    wants_health_port,
    wants_node_ports,
)
from tiphys_apiserver.registry.core.service_claims import Claims, Owner, StoreClaims
from tiphys_apiserver.registry.core.service_validation import validate_service, validate_service_update
from tiphys_apiserver.registry.strategy import Environment, Finish, Strategy, WriteContext
from tiphys_component.log import get_logger

_log = get_logger(__name__)
Held = tuple[frozenset[str], frozenset[int]]

_AFFINITY_TIMEOUT_S = 10800


class ServiceStrategy(Strategy):
    """The rules of services. Holds which addresses and ports are taken, rebuilt at start from what is stored."""

    def __init__(self, resource: ResourceInfo, environment: Environment) -> None:
        super().__init__(resource, environment)
        self._resources = ServiceResources(
            environment.service_cluster_ip_range, environment.service_node_port_range, environment.rng
        )
        store = environment.shared_store
        self._claims: Claims | None = None if store is None else StoreClaims(store, environment.clock, self._is_held)
        # Reservations of writes that have not ended.
        self._under_way: set[Reservations] = set()

    async def start(self) -> None:
        """Count what stored services hold as taken."""
        services = await self.environment.objects.list(Service)
        self._resources.count_anew(services, ())
        if self._claims is None:
            return
        known = await self._claims.owners()
        for service in services:
            # Those of a store that was another server's, or this one's before it shared it.
            items = [item for item in items_of(*held_by(service)) if known.get(item) != service.metadata.uid]
            if items and await self._claims.take(items, owner_of(service)):
                _log.error("address or port has two services", service=_name_of(service))

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
        return await self._reserve(ctx, obj, None)

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
        return await self._reserve(ctx, new, old)

    async def after_delete(self, ctx: WriteContext, obj: Any) -> None:
        """Give back what it held."""
        held = held_by(obj)
        self._resources.release(*held)
        if self._claims is not None:
            await self._claims.give_back(items_of(*held), owner_of(obj))

    async def _reserve(self, ctx: WriteContext, new: Any, old: Any | None) -> Finish:
        before = held_by(old) if old is not None else (frozenset(), frozenset())
        claims = None if ctx.dry_run else self._claims
        taken = await self._take(new, before, claims)
        self._under_way.add(taken)
        after = held_by(new)

        async def finish(stored: bool) -> None:
            self._under_way.discard(taken)
            if stored:
                given = (before[0] - after[0], before[1] - after[1])
                self._resources.release(*given)
                dropped = items_of(*given)
            else:
                taken.release()
                dropped = taken.items
            if claims is not None:
                await claims.give_back(dropped, owner_of(new))

        return finish

    async def _take(self, new: Any, before: Held, claims: Claims | None) -> Reservations:
        """Reserve, here and among all servers. Raises Invalid, ServiceUnavailable."""
        wanted = type(new)()
        wanted.CopyFrom(new)
        fresh = claims is None
        while True:
            try:
                taken = self._resources.fill(new, before)
            except AllocationError as err:
                if fresh:
                    raise Invalid.of("Service", new.metadata.name, [err.error]) from err
                # What is in the way may have been given back at another server.
                await self._count_anew()
                fresh = True
                new.spec.CopyFrom(wanted.spec)
                continue
            if claims is None:
                return taken
            lost = await self._claim(taken, new, claims)
            if not lost:
                return taken
            self._resources.mark(
                [address for address in taken.addresses if address in lost],
                [port for port in taken.ports if str(port) in lost],
            )
            # One that was asked for is refused now, and another is chosen in place of one that was not.
            fresh = True
            new.spec.CopyFrom(wanted.spec)

    async def _claim(self, taken: Reservations, new: Any, claims: Claims) -> set[str]:
        """Make a reservation known to all servers; what others have, and then nothing stays reserved."""
        lost: set[str] | None = None
        try:
            lost = await claims.take(taken.items, owner_of(new))
        finally:
            if lost is None or lost:
                taken.release()
                await claims.give_back([item for item in taken.items if item not in (lost or ())], owner_of(new))
        return lost

    async def _count_anew(self) -> None:
        services = await self.environment.objects.list(Service)
        self._resources.count_anew(services, self._under_way)

    async def _is_held(self, owner: Owner, item: str) -> bool:
        try:
            service: Any = await self.environment.objects.get(Service, owner.name, owner.namespace)
        except NotFound:
            return False
        return bool(service.metadata.uid == owner.uid) and item in items_of(*held_by(service))

    def _default_families(self, spec: Any) -> None:
        if spec.type == EXTERNAL_NAME:
            return
        if not spec.HasField("ipFamilyPolicy"):
            spec.ipFamilyPolicy = "SingleStack"
        if not spec.ipFamilies:
            spec.ipFamilies.append(self._resources.ip_family)


def owner_of(service: Any) -> Owner:
    """The service as the owner of what it holds."""
    metadata = service.metadata
    return Owner(metadata.uid, metadata.namespace, metadata.name)


def _name_of(service: Any) -> str:
    return f"{service.metadata.namespace}/{service.metadata.name}"


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
