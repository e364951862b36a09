"""Role bindings and cluster role bindings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.authorization.escalation import RBAC_GROUP
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class BindingStrategy(Strategy):
    """Serves both kinds; a binding's role never changes."""

    def validate_name(self, name: str) -> list[str]:
        """Any text that can be one part of a path."""
        return validation.is_path_segment(name)

    def apply_defaults(self, obj: Message) -> None:
        """API groups of the role and of users and groups."""
        super().apply_defaults(obj)
        binding: Any = obj
        if not binding.roleRef.apiGroup:
            binding.roleRef.apiGroup = RBAC_GROUP
        for subject in binding.subjects:
            if not subject.apiGroup and subject.kind in ("User", "Group"):
                subject.apiGroup = RBAC_GROUP

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of role and subjects."""
        return super().validate(ctx, obj) + list(_faults(obj, namespaced=self.resource.namespaced))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same, and the role must stay."""
        errors = super().validate_update(ctx, new, old) + list(_faults(new, namespaced=self.resource.namespaced))
        if new.roleRef != old.roleRef and not any(error.path.startswith("roleRef") for error in errors):
            shown = {"apiGroup": new.roleRef.apiGroup, "kind": new.roleRef.kind, "name": new.roleRef.name}
            errors.append(FieldError.invalid("roleRef", shown, "cannot change roleRef"))
        return errors


def _faults(binding: Any, *, namespaced: bool) -> Iterator[FieldError]:
    if binding.roleRef.apiGroup != RBAC_GROUP:
        yield FieldError.not_supported("roleRef.apiGroup", binding.roleRef.apiGroup, (RBAC_GROUP,))
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if binding.roleRef.kind not in kinds:
        yield FieldError.not_supported("roleRef.kind", binding.roleRef.kind, kinds)
    if not binding.roleRef.name:
        yield FieldError.required("roleRef.name")
    for index, subject in enumerate(binding.subjects):
        yield from _subject(subject, f"subjects[{index}]", namespaced=namespaced)


def _subject(subject: Any, path: str, *, namespaced: bool) -> Iterator[FieldError]:
    if not subject.name:
        yield FieldError.required(f"{path}.name")
    if subject.kind == "ServiceAccount":
        if subject.name:
            for why in validation.is_dns1123_subdomain(subject.name):
                yield FieldError.invalid(f"{path}.name", subject.name, why)
        if subject.apiGroup:
            yield FieldError.not_supported(f"{path}.apiGroup", subject.apiGroup, ("",))
        if not namespaced and not subject.namespace:
            yield FieldError.required(f"{path}.namespace")
    elif subject.kind in ("User", "Group"):
        if subject.apiGroup != RBAC_GROUP:
            yield FieldError.not_supported(f"{path}.apiGroup", subject.apiGroup, (RBAC_GROUP,))
    else:
        yield FieldError.not_supported(f"{path}.kind", subject.kind, ("Group", "ServiceAccount", "User"))
