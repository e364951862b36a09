"""FlowSchemas."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.bootstrap.flow_control import MANDATORY_SCHEMAS
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

_MEMBERS = {"User": "user", "Group": "group", "ServiceAccount": "serviceAccount"}
_HIGHEST_PRECEDENCE = 1


class FlowSchemaStrategy(Strategy):
    """The rules of FlowSchemas."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of a new schema."""
        return super().validate(ctx, obj) + _faults(obj)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + _faults(new)


def _faults(item: Any) -> list[FieldError]:
    name, spec = item.metadata.name, item.spec
    for mandatory in MANDATORY_SCHEMAS:
        if mandatory.metadata.name == name and mandatory.spec != spec:
            return [FieldError.forbidden("spec", f"spec of '{name}' must equal the fixed value")]
    errors = []
    if spec.matchingPrecedence == _HIGHEST_PRECEDENCE and name != "exempt":
        errors.append(
            FieldError.invalid(
                "spec.matchingPrecedence", spec.matchingPrecedence, "only the schema named 'exempt' may have 1"
            )
        )
    for index, rule in enumerate(spec.rules):
        errors += _rule_faults(rule, f"spec.rules[{index}]")
    return errors


def _rule_faults(rule: Any, path: str) -> list[FieldError]:
    errors = []
    if not rule.resourceRules and not rule.nonResourceRules:
        errors.append(FieldError.required(path, "resourceRules or nonResourceRules must be given"))
    for index, subject in enumerate(rule.subjects):
        errors += _subject_faults(subject, f"{path}.subjects[{index}]")
    for index, one in enumerate(rule.resourceRules):
        where = f"{path}.resourceRules[{index}]"
        for member in ("verbs", "apiGroups", "resources", "namespaces"):
            errors += _star_faults(getattr(one, member), f"{where}.{member}")
        if not one.namespaces and not one.clusterScope:
            errors.append(
                FieldError.required(f"{where}.namespaces", "resource rules that are not cluster scoped must supply one")
            )
    for index, one in enumerate(rule.nonResourceRules):
        where = f"{path}.nonResourceRules[{index}]"
        errors += _star_faults(one.verbs, f"{where}.verbs")
        errors += _star_faults(one.nonResourceURLs, f"{where}.nonResourceURLs")
    return errors


def _subject_faults(subject: Any, path: str) -> list[FieldError]:
    errors = []
    for kind, member in _MEMBERS.items():
        given = subject.HasField(member)
        if subject.kind == kind and not given:
            errors.append(FieldError.required(f"{path}.{member}", f"is required when subject kind is '{kind}'"))
        elif subject.kind != kind and given:
            errors.append(FieldError.forbidden(f"{path}.{member}", f"is forbidden when subject kind is not '{kind}'"))
    return errors


def _star_faults(values: Any, path: str) -> list[FieldError]:
    if "*" in values and len(values) > 1:
        return [FieldError.invalid(path, list(values), "if '*' is present, must not specify others")]
    return []
