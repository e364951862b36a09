"""What is wrong with the rules of a schema, told when it is written: syntax, types, costs, places. Pure.

Source: apiextensions pkg/apis/apiextensions/validation, ValidateCustomResourceDefinitionOpenAPISchema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.cel.expressions import compile_expression
from tiphys_apiserver.cel.rules import RULES, VARIABLES
from tiphys_apiserver.cel.static_types import Static, member, of_schema
from tiphys_apiserver.crd import json_path

if TYPE_CHECKING:
    from tiphys_apiserver.cel.analysis import Estimate

# Units of cost. Source: validation.go, StaticEstimatedCostLimit and StaticEstimatedCRDCostLimit.
RULE_LIMIT: Final = 10_000_000
SCHEMA_LIMIT: Final = 100_000_000
_REASONS: Final = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_HINT: Final = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are"
    " declared)"
)
_MAX_MESSAGE: Final = 2048

JSON = Mapping[str, Any]


@dataclass(slots=True)
class _Total:
    cost: int = 0
    dear: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """A position: its path, how often it can occur, and whether what was there before can be told."""

    path: str
    times: int = 1
    correlates: bool = True
    is_root: bool = False


def rule_faults(schema: JSON, path: str = "") -> Iterator[FieldError]:
    """Every fault of the rules of a schema; path is that of the schema."""
    total = _Total()
    yield from _faults(schema, _Place(path, is_root=True), total)
    if total.cost > SCHEMA_LIMIT:
        factor = _factor(total.cost, SCHEMA_LIMIT)
        why = f"estimated cost total for entire OpenAPIv3 schema exceeds budget by factor of {factor}"
        yield FieldError.forbidden(path, why)
        for where, _cost in sorted(total.dear, key=lambda pair: -pair[1])[:4]:
            yield FieldError.forbidden(where, "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema")  # fmt: skip  # noqa: E501


def _faults(schema: JSON, at: _Place, total: _Total) -> Iterator[FieldError]:
    seen = of_schema({**schema, "@root": True} if at.is_root else schema)
    for number, rule in enumerate(schema.get(RULES) or ()):
        where = f"{at.path}.{RULES}[{number}]"
        yield from _rule_faults(rule, seen, at, where=where, total=total)
    for name, below in (schema.get("properties") or {}).items():
        here = _Place(f"{at.path}.properties[{name}]", at.times, at.correlates and _map_correlates(schema))
        yield from _faults(below, here, total)
    for name in ("items", "additionalProperties"):
        below = schema.get(name)
        if isinstance(below, Mapping):
            correlates = at.correlates and (name != "items" or schema.get("x-kubernetes-list-type") == "map")
            here = _Place(f"{at.path}.{name}", at.times * max(seen.size, 1), correlates and _map_correlates(schema))
            yield from _faults(below, here, total)


def _map_correlates(schema: JSON) -> bool:
    return schema.get("x-kubernetes-map-type") != "atomic"


def _rule_faults(rule: JSON, seen: Static, at: _Place, *, where: str, total: _Total) -> Iterator[FieldError]:
    # Imported with the first rule: it brings every library of functions, which most servers never need.
    from tiphys_apiserver.cel.analysis import analyse

    text = rule.get("rule", "")
    if not text.strip():
        yield FieldError.required(f"{where}.rule", "rule is not specified")
        return
    yield from _word_faults(rule, seen, where)
    variables = {"self": seen, "oldSelf": Static("optional", item=seen) if rule.get("optionalOldSelf") else seen}
    for name, kind in (("rule", "bool"), ("messageExpression", "string")):
        source = rule.get(name)
        if not source:
            continue
        try:
            program = compile_expression(source, VARIABLES)
            found = analyse(source, program.syntax, variables)
        except CelError as err:
            yield FieldError.invalid(f"{where}.{name}", source, str(err))
            continue
        if found.type.kind not in (kind, "dyn"):
            why = "cel expression must evaluate to a bool" if kind == "bool" else "must evaluate to a string"
            yield FieldError.invalid(f"{where}.{name}", source, why)
        if "oldSelf" in program.variables and not at.correlates:
            why = "oldSelf cannot be used on the uncorrelatable portion of the schema"
            yield FieldError.invalid(f"{where}.{name}", source, why)
        yield from _cost_faults(found, at.times, f"{where}.{name}", total)


def _cost_faults(found: Estimate, times: int, where: str, total: _Total) -> Iterator[FieldError]:
    cost = found.cost * times
    total.cost += cost
    total.dear.append((where, cost))
    if cost > RULE_LIMIT:
        yield FieldError.forbidden(where, f"estimated rule cost exceeds budget by factor of {_factor(cost, RULE_LIMIT)} {_HINT}")  # fmt: skip  # noqa: E501


def _factor(cost: int, limit: int) -> str:
    factor = cost / limit
    return "more than 100x" if factor > 100 else f"{factor:.1f}x"


def _word_faults(rule: JSON, seen: Static, where: str) -> Iterator[FieldError]:
    message = rule.get("message", "")
    if message and not message.strip():
        yield FieldError.invalid(f"{where}.message", message, "message must be non-empty if specified")
    elif "\n" in message.strip() or "\r" in message:
        yield FieldError.invalid(f"{where}.message", message, "message must not contain line breaks")
    elif len(message) > _MAX_MESSAGE:
        yield FieldError.too_long(f"{where}.message", _MAX_MESSAGE)
    elif "\n" in rule["rule"].strip() and not message and not rule.get("messageExpression"):
        yield FieldError.required(f"{where}.message", "message must be specified if rule contains line breaks")
    reason = rule.get("reason")
    if reason and reason not in _REASONS:
        yield FieldError.not_supported(f"{where}.reason", reason, _REASONS)
    if rule.get("fieldPath"):
        yield from _path_faults(rule["fieldPath"], seen, f"{where}.fieldPath")


def _path_faults(text: str, seen: Static, where: str) -> Iterator[FieldError]:
    try:
        names = json_path.members(json_path.parse(text))
    except json_path.BadPath as err:
        yield FieldError.invalid(where, text, f"fieldPath must be a valid path: {err}")
        return
    if not text.startswith((".", "[")) or names is None:
        yield FieldError.invalid(where, text, "fieldPath must be a valid path: does not refer to a field")
        return
    found: Static | None = seen
    for name in names:
        found = member(found, name) if found is not None else None
    if found is None:
        yield FieldError.invalid(where, text, "fieldPath must be a valid path: does not refer to a valid field")
