"""What is wrong with one field of an object, in the words that Kubernetes uses."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson


class FieldErrorType(enum.Enum):
    """Kind of a field error: the cause's reason in a Status, and the words that open its message."""

    NOT_FOUND = ("FieldValueNotFound", "Not found")
    REQUIRED = ("FieldValueRequired", "Required value")
    DUPLICATE = ("FieldValueDuplicate", "Duplicate value")
    INVALID = ("FieldValueInvalid", "Invalid value")
    NOT_SUPPORTED = ("FieldValueNotSupported", "Unsupported value")
    FORBIDDEN = ("FieldValueForbidden", "Forbidden")
    TOO_LONG = ("FieldValueTooLong", "Too long")
    TOO_MANY = ("FieldValueTooMany", "Too many")
    TOO_FEW = ("FieldValueTooFew", "Too few")
    TOO_SHORT = ("FieldValueTooShort", "Too short")
    TYPE_INVALID = ("FieldValueTypeInvalid", "Invalid value")
    INTERNAL = ("InternalError", "Internal error")

    @property
    def reason(self) -> str:
        """Reason of the StatusCause."""
        return self.value[0]

    @property
    def text(self) -> str:
        """First words of the message."""
        return self.value[1]


OMITTED: Final = "<value omitted>"
_WITHOUT_VALUE: Final = frozenset(
    {
        FieldErrorType.REQUIRED,
        FieldErrorType.FORBIDDEN,
        FieldErrorType.TOO_LONG,
        FieldErrorType.TOO_SHORT,
        FieldErrorType.INTERNAL,
    }
)
_SHORT_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quote(text: str) -> str:
    """Text in double quotes, escaped as Go's %q does: messages of Kubernetes quote so."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_quoted_character(character) for character in text) + '"'


def _quoted_character(character: str) -> str:
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    if character.isprintable():
        return character
    point = ord(character)
    if point < 0x80:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _value_text(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, (int, float)):
        return str(value)
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        return str(value)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One finding: the path as in spec.containers[0].name, the kind, the bad value, a detail.

    Use the constructors named after the kinds. The value is text, a number, a bool, or anything
    that JSON can write; OMITTED leaves it out of the message.
    """

    path: str
    type: FieldErrorType
    value: Any = ""
    detail: str = ""

    @property
    def body(self) -> str:
        """The message without the path."""
        text = self.type.text
        if self.type not in _WITHOUT_VALUE and self.value is not OMITTED:
            text = f"{text}: {_value_text(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.path}: {self.body}"

    @classmethod
    def required(cls, path: str, detail: str = "") -> FieldError:
        """The field is needed and is absent or empty."""
        return cls(path, FieldErrorType.REQUIRED, "", detail)

    @classmethod
    def invalid(cls, path: str, value: Any, detail: str) -> FieldError:
        """The value is malformed or out of bounds."""
        return cls(path, FieldErrorType.INVALID, value, detail)

    @classmethod
    def type_invalid(cls, path: str, value: Any, detail: str) -> FieldError:
        """The value is of the wrong type for the schema."""
        return cls(path, FieldErrorType.TYPE_INVALID, value, detail)

    @classmethod
    def not_supported(cls, path: str, value: Any, supported: Iterable[str]) -> FieldError:
        """The value is none of the allowed ones, which are listed in the order given."""
        listed = ", ".join(quote(item) for item in supported)
        detail = f"supported values: {listed}" if listed else ""
        return cls(path, FieldErrorType.NOT_SUPPORTED, value, detail)

    @classmethod
    def forbidden(cls, path: str, detail: str) -> FieldError:
        """The value is well formed and not permitted here."""
        return cls(path, FieldErrorType.FORBIDDEN, "", detail)

    @classmethod
    def duplicate(cls, path: str, value: Any) -> FieldError:
        """The value must be unique and is not."""
        return cls(path, FieldErrorType.DUPLICATE, value)

    @classmethod
    def not_found(cls, path: str, value: Any) -> FieldError:
        """What the value names does not exist."""
        return cls(path, FieldErrorType.NOT_FOUND, value)

    @classmethod
    def too_long(cls, path: str, max_bytes: int) -> FieldError:
        """The text has more than max_bytes bytes; the value is not repeated."""
        unit = "byte" if max_bytes == 1 else "bytes"
        detail = f"may not be more than {max_bytes} {unit}"
        return cls(path, FieldErrorType.TOO_LONG, OMITTED, detail)

    @classmethod
    def too_many(cls, path: str, actual: int, maximum: int) -> FieldError:
        """The list has more than maximum items."""
        unit = "item" if maximum == 1 else "items"
        detail = f"must have at most {maximum} {unit}"
        return cls(path, FieldErrorType.TOO_MANY, actual, detail)

    @classmethod
    def internal(cls, path: str, detail: str) -> FieldError:
        """Something failed that is not the caller's fault."""
        return cls(path, FieldErrorType.INTERNAL, "", detail)


def aggregate_message(errors: Sequence[FieldError]) -> str:
    """All messages as one text: a single one plain, several in brackets, each only once."""
    texts = list(dict.fromkeys(str(error) for error in errors))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
