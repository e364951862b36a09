"""Namespaces: they hold their contents, and go only when those are gone."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext, copy_field

FINALIZER = "kubernetes"
NAME_LABEL = "kubernetes.io/metadata.name"
ACTIVE = "Active"
TERMINATING = "Terminating"


class NamespaceStrategy(Strategy):
    """The rules of namespaces."""

    def validate_name(self, name: str) -> list[str]:
        """One DNS label."""
        return validation.is_dns1123_label(name)

    def apply_defaults(self, obj: Message) -> None:
        """Every namespace carries its own name as a label."""
        super().apply_defaults(obj)
        namespace: Any = obj
        if namespace.metadata.name:
            namespace.metadata.labels[NAME_LABEL] = namespace.metadata.name

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """A new namespace is active, and held by the finalizer of its contents."""
        namespace: Any = obj
        namespace.ClearField("status")
        namespace.status.phase = ACTIVE
        # A generated name is known only now.
        namespace.metadata.labels[NAME_LABEL] = namespace.metadata.name
        if FINALIZER not in namespace.spec.finalizers:
            namespace.spec.finalizers.append(FINALIZER)

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Finalizers of the spec go only by the finalize subresource."""
        super().prepare_for_update(ctx, new, old)
        copy_field(new, old, "spec")

    def prepare_for_status_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """The phase follows from the deletion, whatever is written."""
        super().prepare_for_status_update(ctx, new, old)
        if not old.metadata.HasField("deletionTimestamp"):
            new.status.phase = old.status.phase

    def validate_status_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """A namespace that is going is Terminating, one that is not is Active."""
        errors = super().validate_status_update(ctx, new, old)
        going = old.metadata.HasField("deletionTimestamp")
        if going and new.status.phase != TERMINATING:
            errors.append(
                FieldError.invalid(
                    "status.Phase",
                    new.status.phase,
                    "may only be 'Terminating' if `deletionTimestamp` is not empty",
                )
            )
        return errors

    def prepare_for_subresource_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """finalize changes spec.finalizers and nothing else."""
        copy_field(new, old, "status")

    def prepare_for_delete(self, ctx: WriteContext, obj: Any) -> None:
        """Say that it is going."""
        obj.status.phase = TERMINATING

    def holds_object(self, obj: Any) -> bool:
        """It stays as long as a finalizer of its contents does."""
        return bool(obj.spec.finalizers)
