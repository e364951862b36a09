"""APIServices: who serves a group-version."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.formats import is_dns1035_label, is_dns1123_subdomain
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class APIServiceStrategy(Strategy):
    """The rules of APIServices. One without a service is this server's own, and available from the start."""

    def validate_name(self, name: str) -> list[str]:
        """A version and a group; the group of the core API is empty, so no subdomain it need be."""
        return [] if name and not set(name) & {"/", "%"} and name not in (".", "..") else ["must be VERSION.GROUP"]

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """Status is not the caller's to write."""
        super().prepare_for_create(ctx, obj)
        item: Any = obj
        if not item.spec.HasField("service"):
            condition = item.status.conditions.add(type="Available", status="True", reason="Local")
            condition.message = "Local APIServices are always available"
            condition.lastTransitionTime.seconds = int(ctx.now.timestamp())

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the name and of what belongs together."""
        item: Any = obj
        spec = item.spec
        errors = super().validate(ctx, obj)
        wanted = f"{spec.version}.{spec.group}"
        if item.metadata.name != wanted:
            why = f'must be `spec.version+"."+spec.group`: "{wanted}"'
            errors.append(FieldError.invalid("metadata.name", item.metadata.name, why))
        errors += [FieldError.invalid("spec.version", spec.version, why) for why in is_dns1035_label(spec.version)]
        if spec.group:
            errors += [FieldError.invalid("spec.group", spec.group, why) for why in is_dns1123_subdomain(spec.group)]
        elif spec.version != "v1":
            errors.append(FieldError.required("spec.group", "only v1 may have an empty group and it better be legacy"))
        if not spec.HasField("service"):
            if spec.caBundle:
                errors.append(FieldError.invalid("spec.caBundle", "...", "local APIServices may not have a caBundle"))
            if spec.insecureSkipTLSVerify:
                why = "local APIServices may not have insecureSkipTLSVerify"
                errors.append(FieldError.invalid("spec.insecureSkipTLSVerify", True, why))
        elif spec.insecureSkipTLSVerify and spec.caBundle:
            why = "may not be true if caBundle is present"
            errors.append(FieldError.invalid("spec.insecureSkipTLSVerify", True, why))
        return errors

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return self.validate(ctx, new) + [
            error for error in super().validate_update(ctx, new, old) if error.path.startswith("metadata")
        ]
