"""Replication controllers."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.apps.pod_owner import template_errors
from tiphys_apiserver.registry.core.pod_defaults import default_pod_spec
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class ReplicationControllerStrategy(Strategy):
    """The rules of replication controllers, whose selector is a plain map."""

    def apply_defaults(self, obj: Message) -> None:
        """Labels and selector come from the template where they are not given."""
        super().apply_defaults(obj)
        controller: Any = obj
        spec = controller.spec
        labels = spec.template.metadata.labels
        for target in (controller.metadata.labels, spec.selector):
            if not target:
                for key, value in labels.items():
                    target[key] = value
        default_pod_spec(spec.template.spec)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of selector and template."""
        return super().validate(ctx, obj) + _faults(obj)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + _faults(new)


def _faults(controller: Any) -> list[FieldError]:
    spec = controller.spec
    if not spec.HasField("template"):
        return [FieldError.required("spec.template")]
    errors = list(template_errors(spec.template, "ReplicationController"))
    if not spec.selector:
        errors.append(FieldError.required("spec.selector"))
    labels = spec.template.metadata.labels
    if any(labels.get(key) != value for key, value in spec.selector.items()):
        errors.append(
            FieldError.invalid(
                "spec.template.metadata.labels", dict(labels), "`selector` does not match template `labels`"
            )
        )
    return errors
