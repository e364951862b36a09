"""Volume attachments."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.formats import is_dns1123_subdomain
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class VolumeAttachmentStrategy(Strategy):
    """The rules of attachments: one volume on one node, for good."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the source and the node."""
        item: Any = obj
        errors = super().validate(ctx, obj)
        source = item.spec.source
        if item.spec.HasField("source"):
            named = bool(source.persistentVolumeName)
            if named and source.HasField("inlineVolumeSpec"):
                errors.append(
                    FieldError.forbidden(
                        "spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
                    )
                )
            elif not named and not source.HasField("inlineVolumeSpec"):
                errors.append(
                    FieldError.required(
                        "spec.source.persistentVolumeName", "must specify non empty persistentVolumeName"
                    )
                )
        if item.spec.nodeName:
            for why in is_dns1123_subdomain(item.spec.nodeName):
                errors.append(FieldError.invalid("spec.nodeName", item.spec.nodeName, why))
        return errors

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The spec as a whole stays."""
        before = [error for error in super().validate_update(ctx, new, old) if not error.path.startswith("spec.")]
        if new.spec != old.spec:
            before.append(FieldError.invalid("spec", "", "field is immutable"))
        return before
