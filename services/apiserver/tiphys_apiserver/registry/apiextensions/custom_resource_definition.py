"""Custom resource definitions: names, versions, schemas. What they make of the server is in crd/."""

from __future__ import annotations

from typing import Any

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.crd import definition, names
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class CustomResourceDefinitionStrategy(Strategy):
    """The rules of definitions."""

    def apply_defaults(self, obj: Any) -> None:
        """Fill the names that follow from the kind."""
        super().apply_defaults(obj)
        definition.default(obj)

    def prepare_for_create(self, ctx: WriteContext, obj: Any) -> None:
        """The status begins with the version that objects are stored in."""
        super().prepare_for_create(ctx, obj)
        definition.remember_stored(obj)

    def validate(self, ctx: WriteContext, obj: Any) -> list[FieldError]:
        """The schema's rules and those of definitions."""
        return super().validate(ctx, obj) + list(definition.faults(obj))

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Another stored version is one more that objects may be stored in."""
        super().prepare_for_update(ctx, new, old)
        definition.remember_stored(new)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same, and what may not change."""
        errors = super().validate_update(ctx, new, old)
        if new.spec != old.spec:
            errors += definition.faults(new)
        return errors + list(definition.update_faults(new, old))

    def validate_status_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Versions that objects may be stored in can be taken away, but not the one that is stored now."""
        return super().validate_status_update(ctx, new, old) + list(definition.stored_faults(new))

    def prepare_for_delete(self, ctx: WriteContext, obj: Any) -> None:
        """The objects go first: a finalizer holds the definition until then."""
        if definition.FINALIZER not in obj.metadata.finalizers and _may_have_objects(obj):
            obj.metadata.finalizers.append(definition.FINALIZER)
            names.set_terminating(
                obj,
                "InstanceDeletionPending",
                "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
                ctx.now,
            )


def _may_have_objects(obj: Any) -> bool:
    """Whether the kind was ever served, and its objects have not been deleted yet."""
    for condition in obj.status.conditions:
        if condition.type == "Terminating" and condition.reason == "InstanceDeletionCompleted":
            return False
    return True
