"""Field selectors: metadata.name=x,status.phase!=Running."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


class FieldSelectorError(ValueError):
    """The text is no field selector."""


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One term: the field's path, whether it must be equal, and the value."""

    field: str
    equal: bool
    value: str

    def __str__(self) -> str:
        return f"{self.field}{'=' if self.equal else '!='}{_escape(self.value)}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All requirements must hold; without any, everything matches."""

    requirements: tuple[FieldRequirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """Reads terms joined by commas; backslash escapes comma, equals sign and itself.

        Raises FieldSelectorError.
        """
        return cls(tuple(_parse_term(term) for term in _split_terms(text) if term))

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether an object with these field values is selected; an absent field is empty."""
        return all(
            (fields.get(requirement.field, "") == requirement.value) is requirement.equal
            for requirement in self.requirements
        )

    def exact(self, field: str) -> str | None:
        """The value that the field must have, if the selector says; for indexes."""
        for requirement in self.requirements:
            if requirement.equal and requirement.field == field:
                return requirement.value
        return None

    def transform(self, rename: Callable[[str, str], tuple[str, str]]) -> FieldSelector:
        """The same selector with each field and value passed through a function, which may raise."""
        return FieldSelector(
            tuple(
                FieldRequirement(field, requirement.equal, value)
                for requirement in self.requirements
                for field, value in (rename(requirement.field, requirement.value),)
            )
        )

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _split_terms(text: str) -> list[str]:
    terms: list[str] = []
    start = position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        if text[position] == ",":
            terms.append(text[start:position])
            start = position + 1
        position += 1
    terms.append(text[start:])
    return terms


def _parse_term(term: str) -> FieldRequirement:
    for position, character in enumerate(term):
        rest = term[position:]
        if rest.startswith("!="):
            return FieldRequirement(term[:position], False, _unescape(rest[2:], term))
        if rest.startswith("=="):
            return FieldRequirement(term[:position], True, _unescape(rest[2:], term))
        if character == "=":
            return FieldRequirement(term[:position], True, _unescape(rest[1:], term))
    raise FieldSelectorError(f"invalid selector: '{term}'; can't understand '{term}'")


def _unescape(value: str, term: str) -> str:
    out: list[str] = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if escaped not in ("\\", ",", "=") or not escaped:
                raise FieldSelectorError(f"invalid field selector: invalid escape sequence: \\{escaped}")
            out.append(escaped)
        elif character in ",=":
            raise FieldSelectorError(f"invalid selector: '{term}'; unescaped character in value: {character}")
        else:
            out.append(character)
    return "".join(out)
