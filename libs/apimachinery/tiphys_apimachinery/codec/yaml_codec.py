"""API objects in YAML: read as JSON values, with the C loader, within limits.

YAML is JSON with another spelling here: keys are text, dates stay text, and what JSON can't say is
refused. Aliases multiply a small text into a huge value, so they are counted against a limit.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, TypeVar

import yaml
from google.protobuf.message import Message

from tiphys_apimachinery.codec.json_codec import FieldSink, from_json, strict_error
from tiphys_apimachinery.errors import BadRequest

M = TypeVar("M", bound=Message)

# Nodes that aliases may add to those that are written out.
_MAX_ALIASED_NODES: Final = 100_000
_MAX_DEPTH: Final = 200
_MAX_DIGITS: Final = 300
# What begins a level, but for members of a block, which are indented.
_OPENINGS: Final = (b"[", b"{", b"- ", b"-\t", b"? ", b"?\t")


class _Loader(yaml.CSafeLoader):
    """Safe loader with YAML 1.1's dates left as text."""


# Dates would become objects that JSON has not; YAML 1.1's numbers to the base 60 would make 22:22 a
# number, which Go's reader does not; and 1.1 misses 1e3 without a point. So these three are our own.
_OWN_TAGS: Final = ("timestamp", "int", "float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _OWN_TAGS]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


class _Dumper(yaml.CSafeDumper):
    """Dumper that writes no aliases and keeps block style."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Text that any reader could take for something else is quoted: readers of YAML 1.1, and ours.
_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.CSafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.CSafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def _represent_text(dumper: yaml.representer.BaseRepresenter, text: str) -> yaml.ScalarNode:
    """Text of several lines keeps its lines."""
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def parse(data: bytes) -> Any:
    """Plain JSON values of one YAML document; raises BadRequest. Repeated keys: the last one wins."""
    return _parse(data, [])


def parse_all(data: bytes) -> list[Any]:
    """Plain JSON values of every document in the text, empty ones left out; raises BadRequest."""
    documents = [document for document in re.split(rb"(?m)^---(?:[ \t].*)?$", data) if document.strip()]
    return [value for value in (parse(document) for document in documents) if value is not None]


def loads(data: bytes, cls: type[M], *, strict: bool = False, sink: FieldSink | None = None) -> M:
    """The message in a YAML document; strict and sink as for JSON. Raises BadRequest."""
    if strict and sink is None:
        sink = FieldSink()
    duplicates: list[str] = []
    value = _parse(data, duplicates)
    message = from_json(cls, value, sink)
    if sink is not None:
        sink.duplicate += duplicates
        error = strict_error(cls, sink) if strict else None
        if error is not None:
            raise error
    return message


def dumps(value: Any) -> bytes:
    """Plain JSON values as YAML, keys sorted as Kubernetes' own writer does."""
    text: bytes = yaml.dump(
        value, Dumper=_Dumper, encoding="utf-8", sort_keys=True, allow_unicode=True, default_flow_style=False
    )
    return text


def _check_depth(data: bytes) -> None:
    """Raise BadRequest for a text that nests too deep.

    Before it is composed: libyaml's composer calls itself for each level, and 40 KB of brackets overflow the stack of
    the process. Most texts can't be that deep, which counting tells at once; of others the events are counted.
    """
    openings = sum(data.count(opening) for opening in _OPENINGS)
    if openings <= _MAX_DEPTH:
        indent = max((len(line) - len(line.lstrip(b" ")) for line in data.split(b"\n")), default=0)
        # UTF-16 spreads the bytes counted here.
        if openings + indent <= _MAX_DEPTH and b"\x00" not in data:
            return
    depth = 0
    for event in yaml.parse(data, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise BadRequest("error converting YAML to JSON: exceeded max depth")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _parse(data: bytes, duplicates: list[str]) -> Any:
    try:
        _check_depth(data)
        # CSafeLoader checks encoding and characters when it is made.
        loader = _Loader(data)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return _Reader(duplicates).value(node, "", 0) if node is not None else None
    except yaml.YAMLError as error:
        raise BadRequest(f"error converting YAML to JSON: yaml: {_one_line(error)}") from error
    except RecursionError as error:
        raise BadRequest("error converting YAML to JSON: exceeded max depth") from error


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


class _Reader:
    """Turns nodes into values and counts the nodes that are reached again through aliases."""

    def __init__(self, duplicates: list[str]) -> None:
        self._duplicates = duplicates
        self._seen: set[int] = set()
        self._aliased = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise BadRequest("error converting YAML to JSON: exceeded max depth")
        if id(node) in self._seen:
            self._aliased += 1
            if self._aliased > _MAX_ALIASED_NODES:
                raise BadRequest("error converting YAML to JSON: yaml: document contains excessive aliasing")
        self._seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        return self._mapping(node, path, depth)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        match node.tag.rpartition(":")[2]:
            case "int":
                return _whole_number(node.value)
            case "float":
                return self._float(node)
            case "bool":
                return self._scalars.construct_yaml_bool(node)
            case "null":
                return None
            case "binary":
                return "".join(node.value.split())
            case _:
                return node.value

    def _float(self, node: yaml.ScalarNode) -> float:
        number = float(self._scalars.construct_yaml_float(node))
        if not math.isfinite(number):
            raise BadRequest(f"error converting YAML to JSON: JSON has no number {node.value}")
        return number

    def _mapping(self, node: yaml.Node, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                self._merge(merged, value_node, path, depth)
                continue
            key = self._key(key_node)
            place = f"{path}.{key}" if path else key
            if key in found:
                self._duplicates.append(place)
            found[key] = self.value(value_node, place, depth + 1)
        return {**merged, **found} if merged else found

    def _merge(self, merged: dict[str, Any], node: yaml.Node, path: str, depth: int) -> None:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            value = self.value(source, path, depth + 1)
            if not isinstance(value, dict):
                raise BadRequest("error converting YAML to JSON: yaml: map merge requires map or sequence of maps")
            for key, item in value.items():
                merged.setdefault(key, item)

    def _key(self, node: yaml.Node) -> str:
        value = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (str, int, float)):
            return str(value)
        raise BadRequest("error converting YAML to JSON: only text can be a key")


def _whole_number(text: str) -> int | float:
    """The number as Go reads it: a leading 0 means octal; what no 64 bits hold becomes a float."""
    digits = text.replace("_", "")
    sign, body = (digits[0], digits[1:]) if digits[0] in "+-" else ("", digits)
    prefix = body[:2].lower()
    if prefix in ("0b", "0o", "0x"):
        number = int(body, 0)
    elif body.startswith("0") and len(body) > 1 and body.strip("01234567") == "":
        number = int(body, 8)
    elif len(body) > _MAX_DIGITS:
        raise BadRequest(f"error converting YAML to JSON: a number of {len(body)} digits is too long")
    else:
        number = int(body)
    number = -number if sign == "-" else number
    return number if -(2**63) <= number < 2**64 else float(number)
