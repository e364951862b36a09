"""The level baseline: nothing that is known to lead out of a container.

Source: Kubernetes' Pod Security Standards, with the versions in which each rule took its form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiphys_apiserver.admission.pod_security.finding import Check, Finding, Pod, named, quoted

CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start",
    }
)  # fmt: skip
_SYSCTLS_127 = _SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_129 = _SYSCTLS_127 | {
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
_SYSCTLS_132 = _SYSCTLS_129 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}


def host_namespaces(pod: Pod) -> Finding | None:
    """The node's own network, processes or IPC."""
    used = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if getattr(pod.spec, name)]
    return Finding("host namespaces", ", ".join(used)) if used else None


def privileged(pod: Pod) -> Finding | None:
    """Containers with all rights of the node."""
    found = [c.name for c in pod.containers() if c.securityContext.privileged]
    return (
        Finding("privileged", f"{named('container', found)} must not set securityContext.privileged=true")
        if found
        else None
    )


def capabilities(pod: Pod) -> Finding | None:
    """Capabilities beyond those that runtimes give anyway."""
    found, names = [], []
    for container in pod.containers():
        extra = [name for name in container.securityContext.capabilities.add if name not in CAPABILITIES]
        if extra:
            found.append(container.name)
            names += extra
    if not found:
        return None
    detail = f"{named('container', found)} must not include {quoted(sorted(names))} in securityContext.capabilities.add"
    return Finding("non-default capabilities", detail)


def host_path_volumes(pod: Pod) -> Finding | None:
    """Directories of the node."""
    found = [volume.name for volume in pod.spec.volumes if volume.volumeSource.HasField("hostPath")]
    return Finding("hostPath volumes", named("volume", found)) if found else None


def host_ports(pod: Pod) -> Finding | None:
    """Ports of the node."""
    found, ports = [], []
    for container in pod.containers():
        used = [str(port.hostPort) for port in container.ports if port.hostPort]
        if used:
            found.append(container.name)
            ports += used
    if not found:
        return None
    numbers = list(dict.fromkeys(ports))
    verb = "uses" if len(found) == 1 else "use"
    word = "hostPort" if len(numbers) == 1 else "hostPorts"
    return Finding("hostPort", f"{named('container', found)} {verb} {word} {', '.join(numbers)}")


def host_addresses(pod: Pod) -> Finding | None:
    """Probes and hooks that the node sends to an address of the pod's choice."""
    found = [container.name for container in pod.containers() if any(_hosts(container))]
    if not found:
        return None
    return Finding("probe or lifecycle host", f"{named('container', found)} must not set a host in probes or lifecycle")


def _hosts(container: object) -> list[bool]:
    c: Any = container
    actions = [
        getattr(c, name).handler for name in ("livenessProbe", "readinessProbe", "startupProbe") if c.HasField(name)
    ]
    if c.HasField("lifecycle"):
        actions += [c.lifecycle.postStart, c.lifecycle.preStop]
    return [bool(action.httpGet.host or action.tcpSocket.host) for action in actions]


def app_armor(pod: Pod) -> Finding | None:
    """Profiles that switch AppArmor off."""
    found = []
    profile = pod.spec.securityContext.appArmorProfile
    if profile.type not in ("", "RuntimeDefault", "Localhost"):
        found.append(f"pod must not set AppArmor profile type to {quoted([profile.type])}")
    bad = [
        c for c in pod.containers() if c.securityContext.appArmorProfile.type not in ("", "RuntimeDefault", "Localhost")
    ]
    if bad:
        types = quoted(sorted(c.securityContext.appArmorProfile.type for c in bad))
        found.append(f"{named('container', [c.name for c in bad])} must not set AppArmor profile type to {types}")
    for key, value in sorted(pod.metadata.annotations.items()):
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/"):
            found.append(f'annotation "{key}" must not be "{value}"')
    return (
        Finding("forbidden AppArmor profile" if len(found) == 1 else "forbidden AppArmor profiles", "; ".join(found))
        if found
        else None
    )


def selinux(types: frozenset[str]) -> Callable[[Pod], Finding | None]:
    """SELinux' types beyond these, and users and roles."""

    def check(pod: Pod) -> Finding | None:
        setters, bad = [], []
        holders = [("pod", pod.spec.securityContext), *((c.name, c.securityContext) for c in pod.containers())]
        for name, context in holders:
            options = context.seLinuxOptions
            faults = [f'type "{options.type}"'] if options.type not in types else []
            faults += ["user may not be set"] if options.user else []
            faults += ["role may not be set"] if options.role else []
            if faults:
                setters.append(name)
                bad += faults
        if not setters:
            return None
        who = ["pod"] if setters[0] == "pod" and holders[0][1].seLinuxOptions.ByteSize() else []
        containers = setters[1:] if who else setters
        who += [named("container", containers)] if containers else []
        detail = f"{' and '.join(who)} set forbidden securityContext.seLinuxOptions: {'; '.join(dict.fromkeys(bad))}"
        return Finding("seLinuxOptions", detail)

    return check


def proc_mount(pod: Pod) -> Finding | None:
    """A /proc without its masks."""
    bad = [c for c in pod.containers() if c.securityContext.procMount not in ("", "Default")]
    if not bad:
        return None
    values = quoted(sorted(c.securityContext.procMount for c in bad))
    return Finding(
        "procMount", f"{named('container', [c.name for c in bad])} must not set securityContext.procMount to {values}"
    )


def seccomp(pod: Pod) -> Finding | None:
    """Seccomp switched off."""
    who = ["pod"] if pod.spec.securityContext.seccompProfile.type == "Unconfined" else []
    found = [c.name for c in pod.containers() if c.securityContext.seccompProfile.type == "Unconfined"]
    who += [named("container", found)] if found else []
    if not who:
        return None
    return Finding(
        "seccompProfile", f'{" and ".join(who)} must not set securityContext.seccompProfile.type to "Unconfined"'
    )


def sysctls(allowed: frozenset[str]) -> Callable[[Pod], Finding | None]:
    """Settings of the kernel beyond these, which stay inside the pod."""

    def check(pod: Pod) -> Finding | None:
        bad = [sysctl.name for sysctl in pod.spec.securityContext.sysctls if sysctl.name not in allowed]
        return Finding("forbidden sysctls", ", ".join(dict.fromkeys(bad))) if bad else None

    return check


def host_process(pod: Pod) -> Finding | None:
    """Windows containers that are processes of the node."""
    who = ["pod"] if pod.spec.securityContext.windowsOptions.hostProcess else []
    found = [c.name for c in pod.containers() if c.securityContext.windowsOptions.hostProcess]
    who += [named("container", found)] if found else []
    if not who:
        return None
    return Finding("hostProcess", f"{' and '.join(who)} must not set securityContext.windowsOptions.hostProcess=true")


# In the order in which messages tell them.
CHECKS: tuple[Check, ...] = (
    Check(app_armor),
    Check(capabilities),
    Check(host_namespaces),
    Check(host_path_volumes),
    Check(host_ports),
    Check(host_addresses, since=(1, 34)),
    Check(host_process),
    Check(privileged),
    Check(proc_mount),
    Check(selinux(SELINUX_TYPES), until=(1, 30)),
    Check(selinux(SELINUX_TYPES | {"container_engine_t"}), since=(1, 31)),
    Check(seccomp, since=(1, 19)),
    Check(sysctls(_SYSCTLS), until=(1, 26)),
    Check(sysctls(_SYSCTLS_127), since=(1, 27), until=(1, 28)),
    Check(sysctls(_SYSCTLS_129), since=(1, 29), until=(1, 31)),
    Check(sysctls(_SYSCTLS_132), since=(1, 32)),
)
