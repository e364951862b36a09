"""PriorityLevelConfigurations."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.bootstrap.flow_control import MANDATORY_LEVELS
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Source: kube-apiserver pkg/apis/flowcontrol/validation.
_MOST_QUEUES = 10_000_000


class PriorityLevelConfigurationStrategy(Strategy):
    """The rules of PriorityLevelConfigurations."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of a new level."""
        return super().validate(ctx, obj) + _faults(obj)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + _faults(new)


def _faults(item: Any) -> list[FieldError]:
    name, spec = item.metadata.name, item.spec
    mandatory = next((one for one in MANDATORY_LEVELS if one.metadata.name == name), None)
    if mandatory is not None and _fixed(mandatory.spec) != _fixed(spec):
        return [FieldError.forbidden("spec", f"spec of '{name}' must equal the fixed value")]
    errors = []
    if spec.type == "Exempt" and name != "exempt":
        errors.append(FieldError.invalid("spec.type", spec.type, "must be 'Limited' but for the level named 'exempt'"))
    if spec.type == "Exempt" and spec.HasField("limited"):
        errors.append(FieldError.forbidden("spec.limited", "must be nil if the type is not Limited"))
    if spec.type == "Limited":
        if spec.HasField("exempt"):
            errors.append(FieldError.forbidden("spec.exempt", "must be nil if the type is Limited"))
        if not spec.HasField("limited"):
            errors.append(FieldError.required("spec.limited", "must not be empty when type is Limited"))
        else:
            errors += _response_faults(spec.limited.limitResponse, "spec.limited.limitResponse")
    return errors


def _fixed(spec: Any) -> Any:
    """What of a mandatory level can't be changed: all but the shares and what it lends."""
    copy = type(spec)()
    copy.CopyFrom(spec)
    for member in ("exempt", "limited"):
        if copy.HasField(member):
            for name in ("nominalConcurrencyShares", "lendablePercent", "borrowingLimitPercent"):
                if name in getattr(copy, member).DESCRIPTOR.fields_by_name:
                    getattr(copy, member).ClearField(name)
    return copy


def _response_faults(response: Any, path: str) -> list[FieldError]:
    where = f"{path}.queuing"
    if response.type == "Reject":
        if response.HasField("queuing"):
            return [FieldError.forbidden(where, "must be nil if limited.limitResponse.type is not Queue")]
        return []
    if response.type != "Queue":
        return []
    if not response.HasField("queuing"):
        return [FieldError.required(where, "must not be empty if limited.limitResponse.type is Queue")]
    queuing, errors = response.queuing, []
    if queuing.queues > _MOST_QUEUES:
        errors.append(FieldError.invalid(f"{where}.queues", queuing.queues, f"must not be greater than {_MOST_QUEUES}"))
    if queuing.handSize > queuing.queues:
        errors.append(
            FieldError.invalid(
                f"{where}.handSize", queuing.handSize, f"should not be greater than queues ({queuing.queues})"
            )
        )
    return errors
