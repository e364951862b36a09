"""bridge: a veth pair a container, its host end a port of a bridge that is the containers' gateway."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_interface, ip_network
from pathlib import Path

from tiphys_cni import invoke, masquerade
from tiphys_cni.netlink import IFF_PROMISC, IFF_UP, Link, RouteSocket
from tiphys_cni.netns import route_socket
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.netns import own_identity
from tiphys_sdk.cni.skel import Plugin
from tiphys_sdk.cni.spec import CNIError, ErrorCode, Interface, Result, Route

DEFAULT_BRIDGE = "cni0"
_UNSUPPORTED = ("vlan", "vlanTrunk", "macspoofchk", "uplinkInterface", "disableContainerInterface")
# Networks whose masquerading this process has written, by namespace: the table needs no second look.
_masqueraded: set[tuple[tuple[int, int], str, tuple[str, ...]]] = set()
_masquerade_lock = threading.Lock()


def host_name(container_id: str, ifname: str) -> str:
    """Name of the host end. Made from the container's, so that DEL finds it when the namespace is gone."""
    return "veth" + hashlib.sha256(f"{container_id}/{ifname}".encode()).hexdigest()[:8]


def alias(network: str, container_id: str, ifname: str) -> str:
    """What a port notes about its attachment, so that GC knows whose it is, and people see it in `ip link`."""
    return f"cni {network} {container_id} {ifname}"


def add(call: Call) -> Result:
    """Attaches the container. What was made is taken back if a later step fails."""
    _refuse_unsupported(call)
    if call.netns_fd < 0:
        raise CNIError(ErrorCode.UNKNOWN_CONTAINER, f"CNI_NETNS: no network namespace at {call.netns!r}")
    with RouteSocket() as host, ExitStack() as undo:
        bridge = ensure_bridge(host, call)
        name = host_name(call.container_id, call.ifname)
        if host.link(name) is not None:
            # Before anything is made: undoing a second ADD must not take the first one's address away.
            raise _exists_already(call)
        undo.push(partial(_release, call))
        assigned = invoke.ipam(call, "ADD") or Result()
        if call.conf.get("ipam", {}).get("type") and not assigned.ips:
            raise CNIError(ErrorCode.INVALID_CONFIG, "ipam plugin gave no address")
        try:
            host.create_veth(name, call.ifname, call.netns_fd, master=bridge.index, mtu=call.integer("mtu"))
        except FileExistsError as err:
            raise _exists_already(call) from err
        undo.callback(_delete_host_end, name)
        host.set_alias(name, alias(call.network, call.container_id, call.ifname))
        if call.flag("hairpinMode"):
            host_end = host.link(name)
            assert host_end is not None
            host.set_hairpin(host_end.index)
        gateways = _ensure_gateways(host, bridge, call, assigned)
        result = _configure(call, assigned, bridge, name, gateways=gateways)
        _ensure_masquerading(call, assigned)
        undo.pop_all()
        return result


def _release(call: Call, _kind: object, failure: BaseException | None, _trace: object) -> bool:
    """Gives the address back; where that fails too, the failure that is on its way says so and goes on."""
    try:
        invoke.ipam(call, "DEL")
    except CNIError as err:
        if not isinstance(failure, CNIError):
            raise
        failure.details = f"{failure.details}; and the address was not given back: {err.message}".lstrip("; ")
    return False


def _exists_already(call: Call) -> CNIError:
    message = f"{call.ifname} exists in {call.netns} already: delete the attachment before adding it again"
    return CNIError(ErrorCode.NETLINK_FAILURE, message)


def _refuse_unsupported(call: Call) -> None:
    for key in _UNSUPPORTED:
        if call.conf.get(key):
            raise CNIError(ErrorCode.UNSUPPORTED_FIELD, f"{key}: {call.conf[key]!r} is not supported by this bridge")


def ensure_bridge(host: RouteSocket, call: Call) -> Link:
    """The bridge, up; made where it is missing."""
    name = str(call.conf.get("bridge") or DEFAULT_BRIDGE)
    found = host.link(name)
    if found is None:
        with contextlib.suppress(FileExistsError):  # Another container's ADD may be quicker.
            host.create_bridge(name, mtu=call.integer("mtu"))
        found = host.link(name)
        assert found is not None
        if call.flag("promiscMode"):
            host.set_flags(found.index, IFF_PROMISC)
    if found.kind != "bridge":
        raise CNIError(
            ErrorCode.INVALID_CONFIG, f"bridge: {name!r} exists and is no bridge but {found.kind or 'a device'}"
        )
    if not found.is_up:
        host.set_flags(found.index, IFF_UP)
    return found


def _ensure_gateways(host: RouteSocket, bridge: Link, call: Call, assigned: Result) -> tuple[str, ...]:
    """Gives the bridge the gateways' addresses where it is to be gateway, and lets the node forward."""
    default = call.flag("isDefaultGateway")
    if not (default or call.flag("isGateway")):
        return ()
    present = host.addresses(bridge.index)
    for address in assigned.ips:
        gateway = address.gateway or str(ip_interface(address.address).network[1])
        wanted = f"{gateway}/{ip_interface(address.address).network.prefixlen}"
        if wanted not in present:
            host.add_address(bridge.index, ip_interface(wanted))
            family = "ipv6/conf/all/forwarding" if ":" in wanted else "ipv4/ip_forward"
            Path(f"/proc/sys/net/{family}").write_text("1")
    if not default:
        return ()
    return tuple(a.gateway or str(ip_interface(a.address).network[1]) for a in assigned.ips)


def _configure(call: Call, assigned: Result, bridge: Link, name: str, *, gateways: tuple[str, ...]) -> Result:
    routes = list(assigned.routes)
    for gateway in gateways:
        everything = "::/0" if ":" in gateway else "0.0.0.0/0"
        if all(route.dst != everything for route in routes):
            routes.append(Route(everything, gateway))
    with route_socket(call.netns_fd) as inner:
        link = inner.link(call.ifname)
        assert link is not None
        inner.set_flags(link.index, IFF_UP)
        for address in assigned.ips:
            inner.add_address(link.index, ip_interface(address.address))
        for route in routes:
            inner.add_route(link.index, ip_network(route.dst), route.gw or _gateway_for(route, assigned))
    interfaces = (
        Interface(bridge.name, bridge.mac),
        Interface(name, mtu=link.mtu),
        Interface(call.ifname, link.mac, call.netns, link.mtu),
    )
    placed = assigned.on_interface(2)
    return Result(interfaces, placed.ips, tuple(routes), call.conf.get("dns") or assigned.dns)


def _gateway_for(route: Route, assigned: Result) -> str:
    version = ip_network(route.dst).version
    return next((a.gateway for a in assigned.ips if ip_interface(a.address).version == version), "")


def _ensure_masquerading(call: Call, assigned: Result) -> None:
    if not call.flag("ipMasq"):
        return
    subnets = tuple(sorted({str(ip_interface(a.address).network) for a in assigned.ips}))
    key = (own_identity(), call.network, subnets)
    with _masquerade_lock:
        if key not in _masqueraded:
            masquerade.ensure(call.network, subnets)
            _masqueraded.add(key)


def _delete_host_end(name: str) -> None:
    with RouteSocket() as host:
        host.delete_link(name)


def delete(call: Call) -> None:
    """Detaches the container and frees its addresses; what is gone already is well."""
    invoke.ipam(call, "DEL")
    _delete_host_end(host_name(call.container_id, call.ifname))
    if call.netns_fd >= 0:
        # A pair that another bridge plugin made has a host end of another name; its other end is here.
        with route_socket(call.netns_fd) as inner:
            inner.delete_link(call.ifname)


def check(call: Call) -> None:
    """Fails where interface, port, addresses or routes are not as the previous result says."""
    previous = call.previous
    if previous is None:
        raise CNIError(ErrorCode.INVALID_CONFIG, "CHECK needs prevResult")
    invoke.ipam(call, "CHECK")
    with RouteSocket() as host:
        bridge = host.link(str(call.conf.get("bridge") or DEFAULT_BRIDGE))
        port = host.link(host_name(call.container_id, call.ifname))
    if bridge is None or port is None or port.master != bridge.index:
        raise CNIError(ErrorCode.CHECK_FAILED, f"bridge: the port of container {call.container_id} is missing")
    if call.netns_fd < 0:
        raise CNIError(ErrorCode.CHECK_FAILED, f"bridge: no network namespace at {call.netns!r}")
    with route_socket(call.netns_fd) as inner:
        link = inner.link(call.ifname)
        if link is None or not link.is_up:
            raise CNIError(ErrorCode.CHECK_FAILED, f"bridge: {call.ifname} is missing or down in {call.netns}")
        present = inner.addresses(link.index)
        for address in previous.ips:
            if address.address not in present:
                raise CNIError(ErrorCode.CHECK_FAILED, f"bridge: {call.ifname} lacks address {address.address}")
        for route in previous.routes:
            if not inner.has_route(link.index, ip_network(route.dst)):
                raise CNIError(ErrorCode.CHECK_FAILED, f"bridge: {call.netns} lacks the route to {route.dst}")
    if call.flag("ipMasq") and not masquerade.is_present(call.network):
        raise CNIError(ErrorCode.CHECK_FAILED, f"bridge: masquerading of network {call.network} is missing")


def status(call: Call) -> None:
    """Ready when address management is."""
    invoke.ipam(call, "STATUS")


def collect(call: Call) -> None:
    """Removes this network's ports and addresses of containers that are not among the valid attachments."""
    invoke.ipam(call, "GC")
    valid = {alias(call.network, a.container_id, a.ifname) for a in call.valid_attachments}
    with RouteSocket() as host:
        for port in host.links():
            if port.alias.startswith(f"cni {call.network} ") and port.alias not in valid:
                host.delete_link(port.name)


PLUGIN = Plugin("bridge", add, delete, check, status, collect)
