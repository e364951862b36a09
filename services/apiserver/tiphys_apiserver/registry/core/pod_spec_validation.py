"""Rules of a pod's spec that take more than one field; for pods and for templates of pods alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.container_validation import (
    PodFacts,
    host_port_conflicts,
    local_path_errors,
    validate_container,
    validate_init_container,
    validate_run_actions,
)
from tiphys_apiserver.registry.core.device_claims import claim_errors
from tiphys_apiserver.registry.core.pod_resize import validate_policies
from tiphys_apiserver.registry.core.scheduling_validation import (
    validate_affinity,
    validate_node_selector_map,
    validate_spread,
    validate_tolerations,
)
from tiphys_apiserver.registry.core.volume_validation import validate_volumes

# Source: pkg/apis/core/validation, MaxDNSNameservers and the like.
_MAX_NAMESERVERS = 3
_MAX_SEARCHES = 32
_MAX_SEARCH_CHARACTERS = 2048
# Not allowed on containers for debugging.
_NOT_EPHEMERAL = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "resizePolicy")


def validate_pod_spec(spec: Any, path: str) -> list[FieldError]:
    """Every fault of a pod's spec that the schema cannot tell."""
    errors = list(_containers(spec, path))
    errors += validate_volumes(spec.volumes, f"{path}.volumes")
    errors += validate_tolerations(spec.tolerations, f"{path}.tolerations")
    errors += validate_node_selector_map(spec.nodeSelector, f"{path}.nodeSelector")
    errors += validate_spread(spec.topologySpreadConstraints, f"{path}.topologySpreadConstraints")
    if spec.HasField("affinity"):
        errors += validate_affinity(spec.affinity, f"{path}.affinity")
    errors += _dns(spec, path)
    errors += _security(spec, path)
    errors += _gates(spec, path)
    errors += claim_errors(spec, path)
    errors += validate_policies(spec, path)
    return errors


def _containers(spec: Any, path: str) -> Iterator[FieldError]:
    facts = PodFacts(frozenset(volume.name for volume in spec.volumes), spec.hostNetwork)
    names: set[str] = set()

    def name_errors(container: Any, where: str) -> Iterator[FieldError]:
        if container.name and container.name in names:
            yield FieldError.duplicate(f"{where}.name", container.name)
        names.add(container.name)

    for index, container in enumerate(spec.containers):
        where = f"{path}.containers[{index}]"
        yield from name_errors(container, where)
        yield from validate_container(container, where, facts)
        yield from validate_run_actions(container, where)
        if container.HasField("restartPolicy"):
            yield FieldError.forbidden(f"{where}.restartPolicy", "may not be set for non-init containers")
    for index, container in enumerate(spec.initContainers):
        where = f"{path}.initContainers[{index}]"
        yield from name_errors(container, where)
        yield from validate_container(container, where, facts)
        yield from validate_init_container(container, where)
        if container.HasField("restartPolicy") and container.restartPolicy != "Always":
            yield FieldError.not_supported(f"{where}.restartPolicy", container.restartPolicy, ("Always",))
    for index, ephemeral in enumerate(spec.ephemeralContainers):
        where = f"{path}.ephemeralContainers[{index}]"
        yield from name_errors(ephemeral.ephemeralContainerCommon, where)
        yield from validate_ephemeral(ephemeral, where, spec, facts)
    paths = [(f"{path}.containers[{index}]", container) for index, container in enumerate(spec.containers)]
    yield from host_port_conflicts(paths)


def validate_ephemeral(ephemeral: Any, path: str, spec: Any, facts: PodFacts) -> Iterator[FieldError]:
    """Faults of a container for debugging."""
    container = ephemeral.ephemeralContainerCommon
    yield from validate_container(container, path, facts)
    for name in _NOT_EPHEMERAL:
        if name == "resources":
            used = bool(container.resources.limits or container.resources.requests or container.resources.claims)
        elif container.DESCRIPTOR.fields_by_name[name].is_repeated:
            used = bool(getattr(container, name))
        else:
            used = container.HasField(name)
        if used:
            yield FieldError.forbidden(f"{path}.{name}", "cannot be set for an Ephemeral Container")
    target = ephemeral.targetContainerName
    if target and not any(other.name == target for other in (*spec.containers, *spec.initContainers)):
        yield FieldError.not_found(f"{path}.targetContainerName", target)
    for index, mount in enumerate(container.volumeMounts):
        if mount.subPath or mount.subPathExpr:
            yield FieldError.forbidden(
                f"{path}.volumeMounts[{index}].subPath", "cannot be set for an Ephemeral Container"
            )


def _dns(spec: Any, path: str) -> Iterator[FieldError]:
    where = f"{path}.dnsConfig"
    config = spec.dnsConfig if spec.HasField("dnsConfig") else None
    if spec.dnsPolicy == "None":
        if config is None:
            yield FieldError.required(where, "must provide `dnsConfig` when `dnsPolicy` is None")
            return
        if not config.nameservers:
            yield FieldError.required(
                f"{where}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
            )
    if config is None:
        return
    if len(config.nameservers) > _MAX_NAMESERVERS:
        yield FieldError.invalid(
            f"{where}.nameservers",
            list(config.nameservers),
            f"must not have more than {_MAX_NAMESERVERS} nameservers",
        )
    for index, server in enumerate(config.nameservers):
        for why in validation.is_ip(server):
            yield FieldError.invalid(f"{where}.nameservers[{index}]", server, why)
    searches = list(config.searches)
    if len(searches) > _MAX_SEARCHES:
        yield FieldError.invalid(f"{where}.searches", searches, f"must not have more than {_MAX_SEARCHES} search paths")
    if len(" ".join(searches)) > _MAX_SEARCH_CHARACTERS:
        yield FieldError.invalid(
            f"{where}.searches",
            searches,
            f"must not have more than {_MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list",
        )


def _security(spec: Any, path: str) -> Iterator[FieldError]:
    if spec.shareProcessNamespace and spec.hostPID:
        yield FieldError.invalid(
            f"{path}.shareProcessNamespace",
            spec.shareProcessNamespace,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        )
    if spec.HasField("hostUsers") and not spec.hostUsers:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if getattr(spec, name):
                yield FieldError.forbidden(f"{path}.{name}", "when `hostUsers` is false")
    if spec.HasField("securityContext"):
        seen: set[str] = set()
        for index, sysctl in enumerate(spec.securityContext.sysctls):
            if sysctl.name in seen:
                yield FieldError.duplicate(f"{path}.securityContext.sysctls[{index}].name", sysctl.name)
            seen.add(sysctl.name)
        profile = spec.securityContext.seccompProfile
        if profile.HasField("localhostProfile"):
            yield from local_path_errors(
                profile.localhostProfile, f"{path}.securityContext.seccompProfile.localhostProfile"
            )


def _gates(spec: Any, path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, gate in enumerate(spec.schedulingGates):
        if gate.name in seen:
            yield FieldError.duplicate(f"{path}.schedulingGates[{index}].name", gate.name)
        seen.add(gate.name)
    if spec.nodeName and spec.schedulingGates:
        yield FieldError.forbidden(f"{path}.nodeName", "cannot be set until all schedulingGates have been cleared")


def validate_template(template: Any, path: str) -> list[FieldError]:
    """Faults of the template of pods that a controller makes."""
    errors: list[FieldError] = []
    for key, value in template.metadata.labels.items():
        where = f"{path}.metadata.labels"
        errors += [FieldError.invalid(where, key, why) for why in validation.is_qualified_name(key)]
        errors += [FieldError.invalid(where, value, why) for why in validation.is_label_value(value)]
    for key in template.metadata.annotations:
        where = f"{path}.metadata.annotations"
        errors += [FieldError.invalid(where, key, why) for why in validation.is_qualified_name(key.lower())]
    errors += validate_pod_spec(template.spec, f"{path}.spec")
    if template.spec.ephemeralContainers:
        errors.append(
            FieldError.forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")
        )
    return errors
