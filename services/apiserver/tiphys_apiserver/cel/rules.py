"""x-kubernetes-validations: CEL rules in the schemas of custom resources, checked along a value. Pure.

A rule sees `self`, and `oldSelf` where it names it: such a rule is about changes, and is not asked where there was
nothing before (but with optionalOldSelf, where oldSelf is an optional), nor for items of lists that can't be told
apart. What was invalid before and stays as it was is let be. Source: apiextensions pkg/apiserver/schema/cel.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tiphys_apimachinery.cel.program import Activation, Budget, BudgetExceeded, Program
from tiphys_apimachinery.cel.steps import CostExceeded
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.cel.expressions import compile_expression

RULES: Final = "x-kubernetes-validations"
VARIABLES: Final = frozenset({"self", "oldSelf"})
# Of a computed message. Source: validation.go, maxMessageExpressionLength.
MAX_MESSAGE: Final = 5120
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, compiled."""

    program: Program
    message: str
    message_program: Program | None
    reason: str
    field_path: str
    optional_old: bool

    @property
    def is_about_changes(self) -> bool:
        """Whether it looks at the value before."""
        return "oldSelf" in self.program.variables


@dataclass(slots=True)
class RuleTree:
    """The positions of a schema that have rules, or lead to some."""

    rules: tuple[Rule, ...] = ()
    properties: dict[str, RuleTree] = field(default_factory=dict)
    additional: RuleTree | None = None
    named: frozenset[str] = frozenset()
    items: RuleTree | None = None
    list_keys: tuple[str, ...] = ()
    is_set: bool = False


def build(schema: Mapping[str, Any]) -> RuleTree | None:
    """The rules of a schema; None where it has none. Raises CelError for one that can't be compiled."""
    tree = RuleTree(rules=tuple(_compiled(rule) for rule in schema.get(RULES) or ()))
    properties = schema.get("properties") or {}
    for name, part in properties.items():
        below = build(part)
        if below is not None:
            tree.properties[name] = below
    tree.named = frozenset(properties)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), Mapping):
            setattr(tree, "items" if name == "items" else "additional", build(schema[name]))
    tree.list_keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    tree.is_set = schema.get("x-kubernetes-list-type") == "set"
    return tree if tree.rules or tree.properties or tree.items or tree.additional else None


def _compiled(rule: Mapping[str, Any]) -> Rule:
    told = rule.get("messageExpression")
    return Rule(
        program=compile_expression(rule.get("rule", ""), VARIABLES),
        message=rule.get("message", ""),
        message_program=compile_expression(told, VARIABLES) if told else None,
        reason=rule.get("reason", ""),
        field_path=rule.get("fieldPath", ""),
        optional_old=bool(rule.get("optionalOldSelf")),
    )


def check(
    tree: RuleTree, value: Any, old: Any = _ABSENT, *, path: str = "", budget: Budget | None = None
) -> list[FieldError]:
    """Every rule that the value breaks, as far as the budget goes.

    old is the value before, left out for a new one; path is that of the value.
    """
    found: list[FieldError] = []
    try:
        for fault in _check(tree, value, old, path=path, budget=budget or Budget()):
            found.append(fault)
    except BudgetExceeded as err:
        found.append(FieldError.invalid(path or "<nil>", _kind(value), str(err)))
    return found


def _check(tree: RuleTree, value: Any, old: Any, *, path: str, budget: Budget) -> Iterator[FieldError]:
    if tree.rules and value is not None:
        yield from _apply(tree.rules, value, old, path=path, budget=budget)
    if isinstance(value, dict):
        for name, below in tree.properties.items():
            if name in value:
                yield from _check(below, value[name], _member(old, name), path=_join(path, name), budget=budget)
        if tree.additional is not None:
            for name, part in value.items():
                if name not in tree.named:
                    where = f"{path}[{name}]"
                    yield from _check(tree.additional, part, _member(old, name), path=where, budget=budget)
    elif isinstance(value, list) and tree.items is not None:
        before = _by_key(tree, old)
        for place, item in enumerate(value):
            past = before.get(_key(tree, item), _ABSENT) if before else _ABSENT
            yield from _check(tree.items, item, past, path=f"{path}[{place}]", budget=budget)


def _apply(rules: tuple[Rule, ...], value: Any, old: Any, *, path: str, budget: Budget) -> Iterator[FieldError]:
    has_old = old is not _ABSENT and old is not None
    is_same = has_old and old == value
    plain = Activation({"self": value, "oldSelf": old} if has_old else {"self": value}, budget)
    for rule in rules:
        seen = plain
        if rule.is_about_changes:
            if rule.optional_old:
                seen = Activation({"self": value, "oldSelf": _optional(old, has_old)}, budget)
            elif not has_old:
                continue
        elif is_same:
            # Nothing was touched, so that whatever is wrong was wrong before.
            continue
        try:
            if rule.program.is_true(seen):
                continue
        except BudgetExceeded:
            raise
        except CelError as err:
            yield FieldError.invalid(path or "<nil>", _kind(value), _failure(err, rule))
            continue
        yield _fault(rule, seen, path=path, value=value)


def _optional(value: Any, is_there: bool) -> Any:
    # Values that Python has no type for come with the compiler, which no rule is here without.
    from tiphys_apimachinery.cel.values import NONE, some

    return some(value) if is_there else NONE


def _failure(err: CelError, rule: Rule) -> str:
    text = rule.program.source
    if isinstance(err, CostExceeded):
        return f"'{err}': no further validation rules will be run due to call cost exceeds limit for rule: {text}"
    if str(err).startswith("no such overload"):
        why = "call arguments did not match a supported operator, function or macro signature"
        return f"'{err}': {why} for rule: {text}"
    return f"{err} evaluating rule: {text}"


def _fault(rule: Rule, seen: Activation, *, path: str, value: Any) -> FieldError:
    where = _join(path, rule.field_path.lstrip(".")) if rule.field_path else path
    where = where or "<nil>"
    text = _message(rule, seen)
    if rule.reason == "FieldValueRequired":
        return FieldError.required(where, text)
    if rule.reason == "FieldValueForbidden":
        return FieldError.forbidden(where, text)
    if rule.reason == "FieldValueDuplicate":
        return FieldError.duplicate(where, _kind(value))
    return FieldError.invalid(where, _kind(value), text)


def _message(rule: Rule, seen: Activation) -> str:
    plain = rule.message or f"failed rule: {rule.program.source.strip()}"
    if rule.message_program is None:
        return plain
    try:
        told = rule.message_program.evaluate(seen)
    except BudgetExceeded:
        raise
    except CelError:
        # The rule is broken all the same; its plain message tells so.
        return plain
    if not isinstance(told, str) or not told.strip() or "\n" in told or len(told) > MAX_MESSAGE:
        return plain
    return told.strip()


def _kind(value: Any) -> Any:
    """A value as errors of rules show it: objects and lists by their kind only."""
    if isinstance(value, dict):
        return "object"
    if isinstance(value, (bytes, datetime.datetime, datetime.timedelta)):
        return str(value)
    return "array" if isinstance(value, list) else value


def _member(old: Any, name: str) -> Any:
    return old[name] if isinstance(old, dict) and name in old else _ABSENT


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _key(tree: RuleTree, item: Any) -> Any:
    if tree.is_set:
        return repr(item)
    if tree.list_keys and isinstance(item, dict):
        return tuple(repr(item.get(name)) for name in tree.list_keys)
    return None


def _by_key(tree: RuleTree, old: Any) -> dict[Any, Any]:
    """Items of the list before, by what tells them apart; empty where nothing does."""
    if not isinstance(old, list):
        return {}
    found = {_key(tree, item): item for item in old}
    found.pop(None, None)
    return found
