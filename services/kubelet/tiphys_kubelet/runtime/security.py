"""Security contexts of pods and containers in CRI's words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tiphys.api.core.v1.container_pb2 import Container, SeccompProfile
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.cri.v1 import api_pb2 as cri

# What a container must not see of /proc and /sys unless it is privileged or asks for an unmasked /proc.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def namespace_options(pod: Pod, *, target_id: str = "") -> cri.NamespaceOption:
    """Which namespaces are the node's, the pod's or the container's own."""
    spec = pod.spec
    options = cri.NamespaceOption(
        network=cri.NODE if spec.hostNetwork else cri.POD,
        ipc=cri.NODE if spec.hostIPC else cri.POD,
        pid=cri.CONTAINER,
    )
    if spec.hostPID:
        options.pid = cri.NODE
    elif target_id:
        options.pid, options.target_id = cri.TARGET, target_id
    elif spec.shareProcessNamespace:
        options.pid = cri.POD
    return options


def sandbox_security(pod: Pod) -> cri.LinuxSandboxSecurityContext:
    """The security context of a sandbox; its groups are what new containers' volumes expect."""
    context = cri.LinuxSandboxSecurityContext(
        namespace_options=namespace_options(pod),
        privileged=any(c.securityContext.privileged for c in (*pod.spec.initContainers, *pod.spec.containers)),
        supplemental_groups=list(_pod_groups(pod, ())),
        seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
    )
    given = pod.spec.securityContext
    if given.HasField("runAsUser"):
        context.run_as_user.value = given.runAsUser
    if given.HasField("runAsGroup") and given.HasField("runAsUser"):
        context.run_as_group.value = given.runAsGroup
    return context


def container_security(
    pod: Pod, container: Container, *, groups: Sequence[int], target_id: str = ""
) -> cri.LinuxContainerSecurityContext:
    """The security context of a container: its own settings over the pod's. `groups` are those of its volumes."""
    own, common = container.securityContext, pod.spec.securityContext
    context = cri.LinuxContainerSecurityContext(
        namespace_options=namespace_options(pod, target_id=target_id),
        privileged=own.privileged,
        readonly_rootfs=own.readOnlyRootFilesystem,
        supplemental_groups=list(_pod_groups(pod, groups)),
        no_new_privs=own.HasField("allowPrivilegeEscalation") and not own.allowPrivilegeEscalation,
        seccomp=_seccomp(own.seccompProfile if own.HasField("seccompProfile") else common.seccompProfile),
    )
    if own.HasField("capabilities"):
        context.capabilities.add_capabilities.extend(own.capabilities.add)
        context.capabilities.drop_capabilities.extend(own.capabilities.drop)
    user = own if own.HasField("runAsUser") else common
    if user.HasField("runAsUser"):
        context.run_as_user.value = user.runAsUser
    group = own if own.HasField("runAsGroup") else common
    if group.HasField("runAsGroup"):
        context.run_as_group.value = group.runAsGroup
    if not own.privileged and own.procMount in ("", "Default"):
        context.masked_paths.extend(MASKED_PATHS)
        context.readonly_paths.extend(READONLY_PATHS)
    return context


def runs_as_non_root(pod: Pod, container: Container) -> bool:
    """The container must not run as user 0."""
    own = container.securityContext
    if own.HasField("runAsNonRoot"):
        return own.runAsNonRoot
    return pod.spec.securityContext.runAsNonRoot


def _pod_groups(pod: Pod, more: Sequence[int]) -> Sequence[int]:
    given = pod.spec.securityContext
    groups = list(given.supplementalGroups)
    if given.HasField("fsGroup"):
        groups.append(given.fsGroup)
    return list(dict.fromkeys([*groups, *more]))


def _seccomp(profile: SeccompProfile) -> cri.SecurityProfile:
    kinds = {
        "RuntimeDefault": cri.SecurityProfile.RuntimeDefault,
        "Localhost": cri.SecurityProfile.Localhost,
    }
    # Without a profile Kubernetes leaves containers unconfined.
    kind = kinds.get(profile.type, cri.SecurityProfile.Unconfined)
    return cri.SecurityProfile(profile_type=kind, localhost_ref=profile.localhostProfile)
