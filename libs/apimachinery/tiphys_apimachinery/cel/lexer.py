"""Expressions to tokens. Source: the lexis of cel-spec doc/langdef.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from tiphys_apimachinery.cel.syntax import CelError, fault
from tiphys_apimachinery.cel.values import INT_MAX, UINT_MAX, UInt

_TOKEN: Final = re.compile(
    r"""
    (?P<space>[\s]+|//[^\n]*)
  | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<int>(?:0[xX][0-9a-fA-F]+|\d+)[uU]?)
  | (?P<string>[rRbB]{0,2}(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
  | (?P<raw>[rR](?:"[^"\n]*"|'[^'\n]*'))
  | (?P<name>[_a-zA-Z]\w*)
  | (?P<quoted>`[A-Za-z0-9_.\-/ ]+`)
  | (?P<op>&&|\|\||<=|>=|==|!=|[\[\]{}().,+*/%!?:<>-])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_RAW: Final = re.compile(r"(?:[rR][bB]?|[bB][rR])(?:\"[^\"\n]*\"|'[^'\n]*')")
_ESCAPE: Final = re.compile(
    r"\\(x[0-9a-fA-F]{2}|X[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.)", re.DOTALL
)
_SIMPLE: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    """kind is value, name, quoted, op or end; text of a value is empty."""

    kind: str
    text: str
    at: int
    value: Any = None


def tokens(source: str) -> list[Token]:
    """The tokens, with one of kind end behind them. Raises CelError."""
    found: list[Token] = []
    at = 0
    while at < len(source):
        raw = _RAW.match(source, at)
        match = raw or _TOKEN.match(source, at)
        if match is None:
            raise fault(source, at, f"Syntax error: token recognition error at: {source[at]!r}")
        kind = "string" if raw is not None else match.lastgroup
        text = match[0]
        if kind == "name":
            found.append(Token("name", text, at))
        elif kind == "op":
            found.append(Token("op", text, at))
        elif kind == "quoted":
            found.append(Token("quoted", text[1:-1], at))
        elif kind != "space":
            found.append(Token("value", "", at, _value(kind or "", text, source, at)))
        at = match.end()
    found.append(Token("end", "<EOF>", len(source)))
    return found


def _value(kind: str, text: str, source: str, at: int) -> Any:
    if kind == "float":
        return float(text)
    if kind == "int":
        return _whole(text, source, at)
    try:
        return _text(text)
    except (ValueError, OverflowError, KeyError) as err:
        raise fault(source, at, f"Syntax error: invalid string literal: {err}") from err


def _whole(text: str, source: str, at: int) -> int:
    unsigned = text[-1] in "uU"
    digits = text.rstrip("uU")
    number = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
    # One more than the greatest: the minus sign comes before it.
    if number > (UINT_MAX if unsigned else INT_MAX + 1):
        raise fault(source, at, f"invalid {'uint' if unsigned else 'int'} literal")
    return UInt(number) if unsigned else number


def _text(literal: str) -> str | bytes:
    opening = re.match(r"[rRbB]*", literal)
    prefix = (opening[0] if opening is not None else "").lower()
    body = literal[len(prefix) :]
    size = 3 if body[:3] in ('"""', "'''") and len(body) >= 6 else 1
    body = body[size:-size]
    is_bytes = "b" in prefix
    if "r" in prefix:
        return body.encode() if is_bytes else body
    if not is_bytes:
        return _ESCAPE.sub(lambda match: _escaped(match[1]), body)
    pieces, at = [], 0
    for match in _ESCAPE.finditer(body):
        pieces.append(body[at : match.start()].encode())
        code = match[1]
        # Of bytes, escapes by number stand for one byte.
        pieces.append(bytes((_number(code),)) if code[0] in "xX0123" and len(code) > 1 else _escaped(code).encode())
        at = match.end()
    return b"".join([*pieces, body[at:].encode()])


def _number(code: str) -> int:
    return int(code[1:], 16) if code[0] in "xXuU" else int(code, 8)


def _escaped(code: str) -> str:
    if len(code) > 1:
        number = _number(code)
        if 0xD800 <= number < 0xE000:
            raise CelError("surrogate")
        return chr(number)
    if code not in _SIMPLE:
        raise ValueError(f"unknown escape \\{code}")
    return _SIMPLE[code]
