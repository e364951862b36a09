"""What may change in a pod that exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys.api.core.v1.pod_pb2 import PodSpec
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.pod_resize import default_policies

_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_pod_update(new: Any, old: Any) -> list[FieldError]:
    """Faults of a change of a pod's spec."""
    if new.spec == old.spec:
        return []
    before = PodSpec()
    before.CopyFrom(old.spec)
    # A pod that was stored before this was a default must not look changed by it.
    default_policies(before)
    return list(_faults(new.spec, before, gated=bool(old.spec.schedulingGates)))


def _faults(new: Any, old: Any, *, gated: bool) -> Iterator[FieldError]:
    for name in ("containers", "initContainers"):
        if len(getattr(new, name)) != len(getattr(old, name)):
            yield FieldError.forbidden(f"spec.{name}", "pod updates may not add or remove containers")
            # Comparing containers pairwise means nothing once their number differs.
            return
        for index, container in enumerate(getattr(new, name)):
            if not container.image.strip():
                yield FieldError.required(f"spec.{name}[{index}].image")
    yield from _deadline(new, old)
    gates = {gate.name for gate in old.schedulingGates}
    added = [gate.name for gate in new.schedulingGates if gate.name not in gates]
    if added:
        yield FieldError.forbidden(
            "spec.schedulingGates", f"only deletion is allowed, but found new scheduling gate '{added[0]}'"
        )
    yield from _tolerations(new, old)
    munged = PodSpec()
    munged.CopyFrom(new)
    _undo_allowed(munged, old, gated=gated)
    if munged != old:
        changed = [
            member.name
            for member in PodSpec.DESCRIPTOR.fields
            if getattr(munged, member.name) != getattr(old, member.name)
        ]
        yield FieldError.forbidden("spec", f"{_MUTABLE}\nchanged: {', '.join(changed)}")


def _undo_allowed(spec: Any, old: Any, *, gated: bool) -> None:
    """Put back in spec what may differ, so that what is left must be equal."""
    for name in ("containers", "initContainers"):
        for container, before in zip(getattr(spec, name), getattr(old, name), strict=True):
            container.image = before.image
    spec.ClearField("activeDeadlineSeconds")
    if old.HasField("activeDeadlineSeconds"):
        spec.activeDeadlineSeconds = old.activeDeadlineSeconds
    for name in ("tolerations", "schedulingGates"):
        spec.ClearField(name)
        getattr(spec, name).MergeFrom(getattr(old, name))
    if old.terminationGracePeriodSeconds < 0 and spec.terminationGracePeriodSeconds == 1:
        spec.terminationGracePeriodSeconds = old.terminationGracePeriodSeconds
    if gated:
        # A pod that no scheduler has seen may still be steered elsewhere.
        for name in ("nodeSelector", "affinity"):
            spec.ClearField(name)
        if old.HasField("affinity"):
            spec.affinity.CopyFrom(old.affinity)
        for key, value in old.nodeSelector.items():
            spec.nodeSelector[key] = value


def _deadline(new: Any, old: Any) -> Iterator[FieldError]:
    path = "spec.activeDeadlineSeconds"
    if not old.HasField("activeDeadlineSeconds"):
        return
    if not new.HasField("activeDeadlineSeconds"):
        yield FieldError.invalid(path, None, "must not update from a positive integer to nil value")
    elif new.activeDeadlineSeconds > old.activeDeadlineSeconds:
        yield FieldError.invalid(path, new.activeDeadlineSeconds, "must be less than or equal to previous value")


def _tolerations(new: Any, old: Any) -> Iterator[FieldError]:
    def identity(toleration: Any) -> tuple[str, str, str, str]:
        return (toleration.key, toleration.operator, toleration.value, toleration.effect)

    kept = {identity(toleration) for toleration in new.tolerations}
    if any(identity(toleration) not in kept for toleration in old.tolerations):
        yield FieldError.forbidden(
            "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
        )


def validate_ephemeral_update(new: Any, old: Any) -> list[FieldError]:
    """Faults of a change of spec.ephemeralContainers: containers come, and never change or go."""
    errors = []
    after = {item.ephemeralContainerCommon.name: item for item in new.spec.ephemeralContainers}
    for item in old.spec.ephemeralContainers:
        name = item.ephemeralContainerCommon.name
        if name not in after:
            errors.append(
                FieldError.forbidden(
                    "spec.ephemeralContainers", f'existing ephemeral containers "{name}" may not be removed'
                )
            )
        elif after[name] != item:
            errors.append(
                FieldError.forbidden(
                    "spec.ephemeralContainers", f'existing ephemeral containers "{name}" may not be changed'
                )
            )
    return errors
