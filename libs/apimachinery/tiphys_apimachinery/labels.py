"""Label selectors: env=dev,tier in (a,b),!legacy.

Grammar and words of errors follow apimachinery pkg/labels/selector.go.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery import formats as validation
from tiphys_apimachinery.field_error import quote

_INTEGER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_TOKEN: Final = re.compile(r"[ \t\r\n]*(==|!=|[=<>!,()]|[^ \t\r\n=<>!,()]+)")


class SelectorError(ValueError):
    """The text or message is no label selector."""


class Operator(enum.Enum):
    """How a requirement compares a label with its values."""

    IN = "in"
    NOT_IN = "notin"
    EQUALS = "="
    NOT_EQUALS = "!="
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER_THAN = "gt"
    LESS_THAN = "lt"


_SYMBOLS: Final = {
    "=": Operator.EQUALS,
    "==": Operator.EQUALS,
    "!=": Operator.NOT_EQUALS,
    ">": Operator.GREATER_THAN,
    "<": Operator.LESS_THAN,
    "in": Operator.IN,
    "notin": Operator.NOT_IN,
}
# How messages write operators.
EXPRESSION_OPERATORS: Final = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.DOES_NOT_EXIST,
    "Gt": Operator.GREATER_THAN,
    "Lt": Operator.LESS_THAN,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term over one key. Values are sorted and unique; there are none for (not) existing."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    @classmethod
    def checked(cls, key: str, operator: Operator, values: Iterable[str]) -> Requirement:
        """A requirement whose key and values are valid; raises SelectorError that says what is not."""
        requirement = cls(key, operator, tuple(sorted(set(values))))
        _check(requirement)
        return requirement

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet this requirement; an absent label meets != and notin."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN | Operator.EQUALS:
                return value is not None and value in self.values
            case Operator.NOT_IN | Operator.NOT_EQUALS:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.GREATER_THAN | Operator.LESS_THAN:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        if value is None or _INTEGER.fullmatch(value) is None:
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator is Operator.GREATER_THAN else int(value) < bound

    def __str__(self) -> str:
        match self.operator:
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"
            case Operator.IN | Operator.NOT_IN:
                return f"{self.key} {self.operator.value} ({','.join(self.values)})"
            case Operator.GREATER_THAN:
                return f"{self.key}>{self.values[0]}"
            case Operator.LESS_THAN:
                return f"{self.key}<{self.values[0]}"
            case _:
                return f"{self.key}{self.operator.value}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; without any everything matches, unless it selects nothing at all."""

    requirements: tuple[Requirement, ...] = ()
    selects_nothing: bool = False

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Reads terms joined by commas; empty text selects everything. Raises SelectorError."""
        return cls(tuple(sorted(_Parser(text).requirements(), key=lambda term: term.key)))

    @classmethod
    def everything(cls) -> Selector:
        """Selects all objects."""
        return cls()

    @classmethod
    def nothing(cls) -> Selector:
        """Selects no object."""
        return cls(selects_nothing=True)

    @classmethod
    def from_set(cls, labels: Mapping[str, str]) -> Selector:
        """Selects objects that have all these labels."""
        return cls(tuple(Requirement(key, Operator.EQUALS, (labels[key],)) for key in sorted(labels)))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        if self.selects_nothing:
            return False
        return all(requirement.matches(labels) for requirement in self.requirements)

    def exact(self, key: str) -> str | None:
        """The value that the label must have, if the selector says; for indexes."""
        for term in self.requirements:
            if term.key == key and term.operator in (Operator.EQUALS, Operator.IN) and len(term.values) == 1:
                return term.values[0]
        return None

    def __bool__(self) -> bool:
        """False only where everything is selected."""
        return self.selects_nothing or bool(self.requirements)

    def __str__(self) -> str:
        return "<none>" if self.selects_nothing else ",".join(str(term) for term in self.requirements)


def from_label_selector(selector: meta_pb2.LabelSelector | None) -> Selector:
    """The selector that a LabelSelector message means: absent selects nothing, empty everything.

    Raises SelectorError for an unknown operator or bad values.
    """
    if selector is None:
        return Selector.nothing()
    terms = [Requirement.checked(key, Operator.EQUALS, (value,)) for key, value in selector.matchLabels.items()]
    for expression in selector.matchExpressions:
        operator = EXPRESSION_OPERATORS.get(expression.operator)
        if operator is None or operator in (Operator.GREATER_THAN, Operator.LESS_THAN):
            raise SelectorError(f"{quote(expression.operator)} is not a valid label selector operator")
        terms.append(Requirement.checked(expression.key, operator, expression.values))
    return Selector(tuple(sorted(terms, key=lambda term: term.key)))


def _check(term: Requirement) -> None:
    """Raises SelectorError for a requirement that can't be meant."""
    errors = [f"key: Invalid value: {quote(term.key)}: {text}" for text in _joined(term.key)]
    count = len(term.values)
    listed = f"[{','.join(quote(value) for value in term.values)}]"
    match term.operator:
        case Operator.IN | Operator.NOT_IN if not count:
            errors.append(f"values: Invalid value: {listed}: for 'in', 'notin' operators, values set can't be empty")
        case Operator.EQUALS | Operator.NOT_EQUALS if count != 1:
            errors.append(f"values: Invalid value: {listed}: exact-match compatibility requires one single value")
        case Operator.EXISTS | Operator.DOES_NOT_EXIST if count:
            errors.append(f"values: Invalid value: {listed}: values set must be empty for exists and does not exist")
        case Operator.GREATER_THAN | Operator.LESS_THAN:
            errors += _check_bound(term.values)
    for index, value in enumerate(term.values):
        texts = validation.is_label_value(value)
        if texts:
            path = f"values[{index}][{term.key}]"
            errors.append(f"{path}: Invalid value: {quote(value)}: {'; '.join(texts)}")
    if errors:
        raise SelectorError(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")


def _joined(key: str) -> list[str]:
    texts = validation.is_qualified_name(key)
    return ["; ".join(texts)] if texts else []


def _check_bound(values: tuple[str, ...]) -> list[str]:
    if len(values) != 1:
        return ["values: Invalid value: for 'Gt', 'Lt' operators, exactly one value is required"]
    if _INTEGER.fullmatch(values[0]) is None:
        return [f"values[0]: Invalid value: {quote(values[0])}: for 'Gt', 'Lt' operators, the value must be an integer"]
    return []


class _Parser:
    """Reads a selector token by token; `in` and `notin` are words only where an operator may stand."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._position = 0

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while self._peek():
            found.append(self._requirement())
            token = self._next()
            if token not in ("", ","):
                raise SelectorError(f"found '{token}', expected: ',' or 'end of string'")
            if token == "," and (not self._peek() or self._peek() == ","):
                raise SelectorError(f"found '{self._peek()}', expected: identifier after ','")
        return found

    def _requirement(self) -> Requirement:
        token = self._next()
        negated = token == "!"
        key = self._next() if negated else token
        if not key or key in "=<>!,()" or (key in _SYMBOLS and not key.isalpha()):
            raise SelectorError(f"unable to parse requirement: found '{key}', expected: identifier")
        try:
            if negated:
                return Requirement.checked(key, Operator.DOES_NOT_EXIST, ())
            if self._peek() in ("", ","):
                return Requirement.checked(key, Operator.EXISTS, ())
            return Requirement.checked(key, *self._operator_and_values())
        except SelectorError as error:
            raise SelectorError(f"unable to parse requirement: {error}") from error

    def _operator_and_values(self) -> tuple[Operator, list[str]]:
        token = self._next()
        operator = _SYMBOLS.get(token)
        if operator is None:
            raise SelectorError(f"found '{token}', expected: in, notin, =, ==, !=, gt, lt")
        if operator in (Operator.IN, Operator.NOT_IN):
            return operator, self._value_set()
        if self._peek() in ("", ","):
            return operator, [""]
        value = self._next()
        if value in "=<>!()" or value in ("==", "!="):
            raise SelectorError(f"found '{value}', expected: identifier")
        return operator, [value]

    def _value_set(self) -> list[str]:
        if self._next() != "(":
            raise SelectorError(f"found '{self._tokens[self._position - 1]}', expected: '('")
        values: list[str] = []
        expects_value = True
        while True:
            token = self._next()
            if token == ")":
                return [*values, ""] if expects_value else values
            if token == ",":
                if expects_value:
                    values.append("")
                expects_value = True
            elif not token or token in "=<>!(" or token in ("==", "!=") or not expects_value:
                raise SelectorError(f"found '{token}', expected: ',', ')' or identifier")
            else:
                values.append(token)
                expects_value = False

    def _peek(self) -> str:
        return self._tokens[self._position]

    def _next(self) -> str:
        token = self._tokens[self._position]
        if token:
            self._position += 1
        return token


def _tokens(text: str) -> list[str]:
    """Tokens of the text, an empty one at the end."""
    return [*_split(text.rstrip(" \t\r\n")), ""]


def _split(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise SelectorError(f"unable to parse requirement: unexpected character {quote(text[position])}")
        yield match.group(1)
        position = match.end()
