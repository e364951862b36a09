"""Tokens to syntax, macros included. Source: the grammar of cel-spec doc/langdef.md, and cel-go's macros."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from tiphys_apimachinery.cel.lexer import Token, tokens
from tiphys_apimachinery.cel.syntax import (
    Bind,
    Call,
    Construct,
    Index,
    ListOf,
    Literal,
    Loop,
    MapOf,
    Name,
    Node,
    Select,
    fault,
)
from tiphys_apimachinery.cel.values import INT_MAX, UInt

# Nesting beyond this is refused before Python's own limit is near. Source: cel-go, default recursion limit 250.
MAX_DEPTH: Final = 100
_RESERVED: Final = frozenset(
    {
        "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
        "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_RELATIONS: Final = frozenset({"<", "<=", ">", ">=", "==", "!=", "in"})
# Macro -> (fewest and most arguments, how many of them are variables: with that many arguments).
_LOOPS: Final = {
    "all": {2: 1, 3: 2},
    "exists": {2: 1, 3: 2},
    "exists_one": {2: 1},
    "existsOne": {2: 1, 3: 2},
    "filter": {2: 1},
    "map": {2: 1, 3: 1},
    "transformList": {3: 2, 4: 2},
    "transformMap": {3: 2, 4: 2},
    "transformMapEntry": {3: 2, 4: 2},
    "sortBy": {2: 1},
}


def parse(source: str) -> Node:
    """The syntax of an expression. Raises CelError naming the place of what is wrong."""
    parser = _Parser(source)
    found = parser.expression()
    parser.expect_end()
    return found


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = tokens(source)
        self._next = 0
        self._depth = 0

    # -- tokens

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _is(self, text: str) -> bool:
        token = self._token
        return token.text == text and token.kind in ("op", "name")

    def _take(self, text: str) -> Token | None:
        token = self._token
        if not self._is(text):
            return None
        self._next += 1
        return token

    def _expect(self, text: str) -> Token:
        found = self._take(text)
        if found is None:
            self._unexpected(text)
        return found

    def _unexpected(self, wanted: str = "") -> NoReturn:
        token = self._token
        shown = token.text or repr(token.value)
        hint = f" expecting '{wanted}'" if wanted else ""
        raise fault(self._source, token.at, f"Syntax error: mismatched input '{shown}'{hint}")

    def expect_end(self) -> None:
        """Nothing may follow. Raises CelError."""
        if self._token.kind != "end":
            self._unexpected("<EOF>")

    # -- grammar, from what binds least

    def expression(self) -> Node:
        """A whole expression."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise fault(self._source, self._token.at, "expression is nested too deeply")
        found = self._left(self._and, "||")
        question = self._take("?")
        if question is not None:
            yes = self._left(self._and, "||")
            self._expect(":")
            found = Call(question.at, "_?_:_", (found, yes, self.expression()))
        self._depth -= 1
        return found

    def _and(self) -> Node:
        return self._left(self._relation, "&&")

    def _left(self, part: Callable[[], Node], operator: str) -> Node:
        terms, places = [part()], [0]
        while (token := self._take(operator)) is not None:
            terms.append(part())
            places.append(token.at)
        return _balanced(f"_{operator}_", terms, places)

    def _relation(self) -> Node:
        found = self._sum()
        while self._token.kind in ("op", "name") and self._token.text in _RELATIONS:
            token = self._token
            self._next += 1
            name = "@in" if token.text == "in" else f"_{token.text}_"
            found = Call(token.at, name, (found, self._sum()))
        return found

    def _sum(self) -> Node:
        found = self._product()
        while self._is("+") or self._is("-"):
            token = self._token
            self._next += 1
            found = Call(token.at, f"_{token.text}_", (found, self._product()))
        return found

    def _product(self) -> Node:
        found = self._unary()
        while self._is("*") or self._is("/") or self._is("%"):
            token = self._token
            self._next += 1
            found = Call(token.at, f"_{token.text}_", (found, self._unary()))
        return found

    def _unary(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise fault(self._source, self._token.at, "expression is nested too deeply")
        try:
            token = self._token
            if self._take("!"):
                return Call(token.at, "!_", (self._unary(),))
            if self._take("-"):
                return self._negative(token)
            return self._member()
        finally:
            self._depth -= 1

    def _negative(self, token: Token) -> Node:
        number = self._token
        if number.kind == "value" and type(number.value) in (int, float):
            self._next += 1
            return self._members(Literal(token.at, -number.value))
        return Call(token.at, "-_", (self._unary(),))

    def _member(self) -> Node:
        return self._members(self._primary())

    def _members(self, found: Node) -> Node:
        while True:
            token = self._token
            if self._take("."):
                optional = self._take("?") is not None
                found = self._selected(found, token, optional=optional)
            elif self._take("["):
                optional = self._take("?") is not None
                found = Index(token.at, found, self.expression(), optional)
                self._expect("]")
            elif self._is("{") and (name := type_name_of(found)):
                found = self._construct(name, found.at)
            else:
                return found

    def _selected(self, of: Node, dot: Token, *, optional: bool) -> Node:
        token = self._token
        if token.kind not in ("name", "quoted") or (token.kind == "name" and token.text in _CONSTANTS):
            self._unexpected("name of a field")
        self._next += 1
        if not optional and token.kind == "name" and self._take("("):
            return self._method(of, token, self._arguments(")"))
        return Select(dot.at, of, token.text, optional)

    def _arguments(self, end: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self._take(end):
            if found:
                self._expect(",")
            found.append(self.expression())
        return tuple(found)

    def _primary(self) -> Node:
        token = self._token
        if token.kind == "value":
            self._next += 1
            if token.value == INT_MAX + 1 and not isinstance(token.value, (UInt, float)):
                raise fault(self._source, token.at, "invalid int literal")
            return Literal(token.at, token.value)
        if self._take("("):
            found = self.expression()
            self._expect(")")
            return found
        if self._take("["):
            return self._list(token)
        if self._take("{"):
            return self._map(token)
        self._take(".")
        return self._named(token)

    def _named(self, start: Token) -> Node:
        token = self._token
        if token.kind != "name":
            self._unexpected()
        self._next += 1
        if token.text in _CONSTANTS:
            return Literal(token.at, _CONSTANTS[token.text])
        if token.text in _RESERVED or token.text == "in":
            raise fault(self._source, token.at, f"reserved identifier: {token.text}")
        if self._take("("):
            return self._function(token, self._arguments(")"))
        return Name(start.at, token.text)

    def _list(self, token: Token) -> Node:
        items: list[tuple[Node, bool]] = []
        while not self._take("]"):
            optional = self._take("?") is not None
            items.append((self.expression(), optional))
            if not self._is("]"):
                self._expect(",")
        return ListOf(token.at, tuple(items))

    def _map(self, token: Token) -> Node:
        entries: list[tuple[Node, Node, bool]] = []
        while not self._take("}"):
            optional = self._take("?") is not None
            key = self.expression()
            self._expect(":")
            entries.append((key, self.expression(), optional))
            if not self._is("}"):
                self._expect(",")
        return MapOf(token.at, tuple(entries))

    def _construct(self, name: str, at: int) -> Node:
        self._expect("{")
        fields: list[tuple[str, Node, bool]] = []
        while not self._take("}"):
            optional = self._take("?") is not None
            token = self._token
            if token.kind not in ("name", "quoted"):
                self._unexpected("name of a field")
            self._next += 1
            self._expect(":")
            fields.append((token.text, self.expression(), optional))
            if not self._is("}"):
                self._expect(",")
        return Construct(at, name, tuple(fields))

    # -- macros

    def _function(self, token: Token, args: tuple[Node, ...]) -> Node:
        if token.text == "has":
            if len(args) != 1 or not isinstance(args[0], Select) or args[0].optional:
                raise fault(self._source, token.at, "invalid argument to has() macro")
            return Select(token.at, args[0].of, args[0].name, tests=True)
        return Call(token.at, token.text, args)

    def _method(self, of: Node, token: Token, args: tuple[Node, ...]) -> Node:
        name = token.text
        counts = _LOOPS.get(name, {}).get(len(args))
        if counts is not None and not (isinstance(of, Name) and of.name == "cel"):
            variables = tuple(self._variable(arg) for arg in args[:counts])
            return Loop(token.at, name, of, variables, args[counts:])
        if name == "bind" and isinstance(of, Name) and of.name == "cel" and len(args) == 3:
            return Bind(token.at, "bind", self._variable(args[0]), args[1], args[2])
        if name in ("optMap", "optFlatMap") and len(args) == 2:
            return Bind(token.at, name, self._variable(args[0]), of, args[1])
        return Call(token.at, name, args, of)

    def _variable(self, node: Node) -> str:
        if not isinstance(node, Name):
            raise fault(self._source, node.at, "argument must be a simple name")
        return node.name


def _balanced(name: str, terms: Sequence[Node], places: Sequence[int]) -> Node:
    """A chain of && or || as a tree of little depth, evaluated in the same order; places are before the terms."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    left = _balanced(name, terms[:half], places[:half])
    return Call(places[half], name, (left, _balanced(name, terms[half:], places[half:])))


def type_name_of(node: Node) -> str:
    """The dotted name that a node is; empty where it is none."""
    names: list[str] = []
    while isinstance(node, Select) and not node.optional and not node.tests:
        names.append(node.name)
        node = node.of
    return ".".join([node.name, *reversed(names)]) if isinstance(node, Name) else ""
