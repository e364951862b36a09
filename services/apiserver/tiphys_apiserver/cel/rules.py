"""x-kubernetes-validations: CEL rules in the schemas of custom resources, checked along a value. Pure.

A rule sees `self`, and `oldSelf` where it names it: such a rule is about changes, and is not asked where there was
nothing before, nor for items of lists that can't be told apart. What was invalid before and stays as it was is let be.
Source: apiextensions pkg/apiserver/schema/cel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.cel.program import Activation, CelError, Program, compile_expression

RULES: Final = "x-kubernetes-validations"
_VARIABLES: Final = frozenset({"self", "oldSelf"})
_ABSENT: Final = object()
# Values that one object's rules may look at, all rules and items together; refuses what would take seconds.
MAX_EVALUATIONS: Final = 100_000


class _Budget:
    def __init__(self) -> None:
        self.left = MAX_EVALUATIONS

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise CelError(
                "validation failed due to running out of cost budget, no further validation rules will be run"
            )


def rule_faults(schema: Mapping[str, Any], path: str = "") -> Iterator[FieldError]:
    """What is wrong with the rules of a schema themselves; path is that of the schema."""
    for place, rule in enumerate(schema.get(RULES) or ()):
        where = f"{path}.{RULES}[{place}]"
        text = rule.get("rule", "")
        try:
            compile_expression(text, _VARIABLES)
        except CelError as err:
            yield FieldError.invalid(f"{where}.rule", text, str(err))
        if rule.get("messageExpression"):
            try:
                compile_expression(rule["messageExpression"], _VARIABLES)
            except CelError as err:
                yield FieldError.invalid(f"{where}.messageExpression", rule["messageExpression"], str(err))
    for name, below in (schema.get("properties") or {}).items():
        yield from rule_faults(below, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from rule_faults(schema[name], f"{path}.{name}")


def has_rules(schema: Mapping[str, Any]) -> bool:
    """Whether anything in a schema has a rule; ask once, not for every object."""
    if schema.get(RULES):
        return True
    parts = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return any(has_rules(part) for part in parts if isinstance(part, dict))


def check(schema: Mapping[str, Any], value: Any, old: Any = _ABSENT, *, path: str = "") -> list[FieldError]:
    """Every rule that the value breaks. old is the value before, left out for a new one; path is that of the value."""
    try:
        return list(_check(schema, value, old, path=path, budget=_Budget()))
    except CelError as err:
        return [FieldError.invalid(path or "<nil>", "<omitted>", str(err))]


def _check(schema: Mapping[str, Any], value: Any, old: Any, *, path: str, budget: _Budget) -> Iterator[FieldError]:
    rules = schema.get(RULES)
    if rules and value is not None and not (old is not _ABSENT and old == value and not _names_old(rules)):
        yield from _apply(rules, value, old, path=path, budget=budget)
    if isinstance(value, dict):
        for name, below in (schema.get("properties") or {}).items():
            if name in value:
                yield from _check(below, value[name], _member(old, name), path=_join(path, name), budget=budget)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for name, part in value.items():
                if name not in (schema.get("properties") or {}):
                    yield from _check(extra, part, _member(old, name), path=f"{path}[{name}]", budget=budget)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        before = _by_key(schema, old)
        for place, item in enumerate(value):
            past = before.get(_key(schema, item), _ABSENT)
            yield from _check(schema["items"], item, past, path=f"{path}[{place}]", budget=budget)


def _names_old(rules: list[Mapping[str, Any]]) -> bool:
    return any("oldSelf" in rule.get("rule", "") for rule in rules)


def _apply(rules: list[Mapping[str, Any]], value: Any, old: Any, *, path: str, budget: _Budget) -> Iterator[FieldError]:
    variables = {"self": value} | ({"oldSelf": old} if old is not _ABSENT and old is not None else {})
    activation = Activation(variables)
    for rule in rules:
        program = compile_expression(rule["rule"], _VARIABLES)
        if "oldSelf" in program.variables and "oldSelf" not in variables and not rule.get("optionalOldSelf"):
            continue
        budget.spend()
        where = _join(path, rule["fieldPath"].lstrip(".")) if rule.get("fieldPath") else path
        try:
            if program.is_true(activation):
                continue
        except CelError as err:
            yield FieldError.invalid(where or "<nil>", _kind(value), f"{err} evaluating rule: {rule['rule']}")
            continue
        yield _fault(rule, program, activation, where=where or "<nil>", value=value)


def _fault(rule: Mapping[str, Any], program: Program, activation: Activation, *, where: str, value: Any) -> FieldError:
    text = rule.get("message") or f"failed rule: {program.source.strip()}"
    if rule.get("messageExpression"):
        try:
            told = compile_expression(rule["messageExpression"], _VARIABLES).evaluate(activation)
            text = told.strip() if isinstance(told, str) and told.strip() and "\n" not in told else text
        except CelError:
            # The rule is broken all the same; its plain message tells so.
            text = rule.get("message") or text
    reason = rule.get("reason", "")
    if reason == "FieldValueRequired":
        return FieldError.required(where, text)
    if reason == "FieldValueForbidden":
        return FieldError.forbidden(where, text)
    if reason == "FieldValueDuplicate":
        return FieldError.duplicate(where, value)
    return FieldError.invalid(where, _kind(value), text)


def _kind(value: Any) -> Any:
    """A value as errors of rules show it: objects and lists by their kind only."""
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else value


def _member(old: Any, name: str) -> Any:
    return old[name] if isinstance(old, dict) and name in old else _ABSENT


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _key(schema: Mapping[str, Any], item: Any) -> Any:
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") == "set":
        return repr(item)
    if keys and isinstance(item, dict):
        return tuple(repr(item.get(name)) for name in keys)
    return None


def _by_key(schema: Mapping[str, Any], old: Any) -> dict[Any, Any]:
    """Items of the list before, by what tells them apart; empty where nothing does."""
    if not isinstance(old, list):
        return {}
    found = {_key(schema, item): item for item in old}
    found.pop(None, None)
    return found
