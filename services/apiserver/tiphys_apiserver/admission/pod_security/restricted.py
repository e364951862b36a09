"""The level restricted: current best practice, at the price of some compatibility. It has baseline's rules too.

Source: Kubernetes' Pod Security Standards, with the versions in which each rule took its form.
"""

from __future__ import annotations

from collections.abc import Callable

from tiphys_apiserver.admission.pod_security import baseline
from tiphys_apiserver.admission.pod_security.finding import Check, Finding, Pod, named, quoted

_VOLUMES = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
)  # fmt: skip
_SECCOMP = ("RuntimeDefault", "Localhost")


def volume_types(pod: Pod) -> Finding | None:
    """Volumes of any other kind than these."""
    found, kinds = [], []
    for volume in pod.spec.volumes:
        source = volume.volumeSource
        if not any(source.HasField(name) for name in _VOLUMES):
            found.append(volume.name)
            kinds += [member.name for member, _ in source.ListFields()] or ["unknown"]
    if not found:
        return None
    verb = "uses" if len(found) == 1 else "use"
    word = "type" if len(set(kinds)) == 1 else "types"
    return Finding(
        "restricted volume types", f"{named('volume', found)} {verb} restricted volume {word} {quoted(sorted(kinds))}"
    )


def privilege_escalation(pod: Pod) -> Finding | None:
    """Containers whose processes may get more rights than their parents."""
    found = [
        c.name
        for c in pod.containers()
        if not c.securityContext.HasField("allowPrivilegeEscalation") or c.securityContext.allowPrivilegeEscalation
    ]
    if not found:
        return None
    return Finding(
        "allowPrivilegeEscalation != false",
        f"{named('container', found)} must set securityContext.allowPrivilegeEscalation=false",
    )


def run_as_non_root(pod: Pod) -> Finding | None:
    """Containers that may run as root."""
    said_no = [
        c.name
        for c in pod.containers()
        if c.securityContext.HasField("runAsNonRoot") and not c.securityContext.runAsNonRoot
    ]
    silent = [c.name for c in pod.containers() if not c.securityContext.HasField("runAsNonRoot")]
    context = pod.spec.securityContext
    if context.runAsNonRoot and not said_no:
        return None
    if said_no:
        detail = f"{named('container', said_no)} must not set securityContext.runAsNonRoot=false"
        return Finding("runAsNonRoot != true", detail)
    if context.HasField("runAsNonRoot") and silent:
        return Finding("runAsNonRoot != true", "pod must not set securityContext.runAsNonRoot=false")
    if silent:
        detail = f"pod or {named('container', silent)} must set securityContext.runAsNonRoot=true"
        return Finding("runAsNonRoot != true", detail)
    return None


def run_as_user(pod: Pod) -> Finding | None:
    """Root by its number."""
    who = ["pod"] if pod.spec.securityContext.HasField("runAsUser") and pod.spec.securityContext.runAsUser == 0 else []
    found = [
        c.name for c in pod.containers() if c.securityContext.HasField("runAsUser") and c.securityContext.runAsUser == 0
    ]
    who += [named("container", found)] if found else []
    return Finding("runAsUser=0", f"{' and '.join(who)} must not set runAsUser=0") if who else None


def seccomp(pod: Pod) -> Finding | None:
    """Containers without a seccomp profile."""
    own = pod.spec.securityContext.seccompProfile.type
    bad = [c for c in pod.containers() if c.securityContext.seccompProfile.type not in ("", *_SECCOMP)]
    if bad or own not in ("", *_SECCOMP):
        who = ["pod"] if own not in ("", *_SECCOMP) else []
        who += [named("container", [c.name for c in bad])] if bad else []
        values = quoted(sorted({own, *(c.securityContext.seccompProfile.type for c in bad)} - {"", *_SECCOMP}))
        return Finding(
            "seccompProfile", f"{' and '.join(who)} must not set securityContext.seccompProfile.type to {values}"
        )
    silent = [c.name for c in pod.containers() if not c.securityContext.seccompProfile.type]
    if own or not silent:
        return None
    detail = f"pod or {named('container', silent)} must set securityContext.seccompProfile.type to"
    return Finding("seccompProfile", f'{detail} "RuntimeDefault" or "Localhost"')


def capabilities(pod: Pod) -> Finding | None:
    """Any capability but binding low ports."""
    keeping, adding, names = [], [], []
    for container in pod.containers():
        held = container.securityContext.capabilities
        if "ALL" not in held.drop:
            keeping.append(container.name)
        extra = [name for name in held.add if name != "NET_BIND_SERVICE"]
        if extra:
            adding.append(container.name)
            names += extra
    details = []
    if keeping:
        details.append(f'{named("container", keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        listed = quoted(sorted(names))
        details.append(f"{named('container', adding)} must not include {listed} in securityContext.capabilities.add")
    return Finding("unrestricted capabilities", "; ".join(details)) if details else None


def _of_linux(check: Callable[[Pod], Finding | None]) -> Callable[[Pod], Finding | None]:
    """A rule about Linux' kernel, which Windows' pods need not name."""
    return lambda pod: None if pod.is_windows else check(pod)


# In the order in which messages tell them.
CHECKS: tuple[Check, ...] = (
    Check(privilege_escalation, since=(1, 8), until=(1, 24)),
    Check(_of_linux(privilege_escalation), since=(1, 25)),
    Check(capabilities, since=(1, 22), until=(1, 24), replaces=baseline.capabilities),
    Check(_of_linux(capabilities), since=(1, 25), replaces=baseline.capabilities),
    Check(volume_types, replaces=baseline.host_path_volumes),
    Check(run_as_non_root),
    Check(run_as_user, since=(1, 23)),
    Check(seccomp, since=(1, 19), until=(1, 24), replaces=baseline.seccomp),
    Check(_of_linux(seccomp), since=(1, 25), replaces=baseline.seccomp),
)
