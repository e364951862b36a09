"""Flags to a frozen dataclass: each field names its flag, and its annotation says how the text is read.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options(LogOptions):
        node_name: str = flag("--node-name", "--hostname-override", help="name of this node")
        sync_period_s: float = flag("--sync-period", default=30.0, duration=True, help="how often to look at all")

    options = parse(Options, argv)

A field may be str, int, float, bool, Path, Literal[...], an optional of these, tuple[str, ...] (repeated or parted by
commas) or Mapping[str, str] (`a=1,b=2`). A field without flag() is not set from the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

OptionsT = TypeVar("OptionsT")

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)")
_METADATA = "tiphys_flag"


@dataclass(frozen=True, slots=True)
class _Flag:
    names: tuple[str, ...]
    help: str
    metavar: str | None
    duration: bool


def flag(
    *names: str,
    help: str,
    default: Any = MISSING,
    metavar: str | None = None,
    duration: bool = False,
) -> Any:
    """A dataclass field set by the flags named; without a default the flag is required.

    duration reads Go's form (`1m30s`, `500ms`) or plain seconds into float seconds.
    """
    if not names or not all(name.startswith("-") for name in names):
        raise ValueError(f"flag names start with '-': {names}")
    metadata = {_METADATA: _Flag(names, help, metavar, duration)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """The flags every service has; its own options inherit from this."""

    log_level: Literal["debug", "info", "warning", "error"] = flag(
        "--log-level", default="info", help="least level of the lines written"
    )
    log_format: Literal["text", "json"] = flag("--log-format", default="text", help="form of the lines written")


def parse(options: type[OptionsT], argv: Sequence[str] | None = None, *, prog: str | None = None) -> OptionsT:
    """The options that argv (without the program's name) asks for.

    As argparse does, --help prints and raises SystemExit(0), and a wrong flag prints one line and raises SystemExit(2).
    """
    doc = (options.__doc__ or "").strip().partition("\n")[0]
    parser = argparse.ArgumentParser(prog=prog, description=doc, allow_abbrev=False)
    hints = typing.get_type_hints(options)
    fields = {item.name: item for item in dataclasses.fields(options) if _METADATA in item.metadata}  # type: ignore[arg-type]
    for name, item in fields.items():
        spec: _Flag = item.metadata[_METADATA]
        required = item.default is MISSING and item.default_factory is MISSING
        parser.add_argument(
            *spec.names,
            dest=name,
            help=_help(spec.help, item),
            required=required,
            default=argparse.SUPPRESS,
            **_reader(hints[name], spec),
        )
    given = vars(parser.parse_args(argv))
    values: dict[str, Any] = {}
    for name in fields:
        if name not in given:
            continue
        value = given[name]
        kind = typing.get_origin(hints[name])
        if kind is tuple:
            value = tuple(part for text in value for part in text.split(",") if part)
        elif _is_mapping(hints[name]):
            value = {key: text for pairs in value for key, text in pairs.items()}
        values[name] = value
    try:
        return options(**values)
    except ValueError as err:
        parser.error(str(err))


def flag_names(options: type) -> dict[str, str]:
    """The first flag of each field of an options class, by the field's name."""
    found = {item.name: item.metadata.get(_METADATA) for item in dataclasses.fields(options)}
    return {name: spec.names[0] for name, spec in found.items() if spec is not None}


def parse_duration(text: str) -> float:
    """Seconds in Go's duration form (`1h2m3.5s`, `300ms`), or in plain seconds (`90`).

    Raises ValueError for any other text.
    """
    body = text.removeprefix("-")
    sign = -1.0 if body != text else 1.0
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", body):
        return sign * float(body)
    total, end = 0.0, 0
    for match in _DURATION.finditer(body):
        if match.start() != end:
            break
        total += float(match[1]) * _UNITS_S[match[2]]
        end = match.end()
    if not body or end != len(body):
        raise ValueError(f"not a duration: {text!r}, use a form like 1m30s or 500ms")
    return sign * total


def _help(text: str, item: dataclasses.Field[Any]) -> str:
    if item.default is MISSING or item.default in (None, "", ()):
        return text.replace("%", "%%")
    return f"{text} (default {item.default})".replace("%", "%%")


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _reader(hint: Any, spec: _Flag) -> dict[str, Any]:
    """The argparse settings that read a field of this annotation."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
        if len(inner) != 1:
            raise TypeError(f"flag {spec.names[0]}: only X | None can be read, not {hint}")
        return _reader(inner[0], spec)
    if origin is Literal:
        return {"choices": typing.get_args(hint)}
    if spec.duration:
        return {"type": _named(parse_duration, "duration"), "metavar": spec.metavar or "DURATION"}
    if hint is bool:
        return {"type": _named(_parse_bool, "boolean"), "nargs": "?", "const": True, "metavar": "true|false"}
    if origin is tuple:
        return {"action": "append", "metavar": spec.metavar or "A,B"}
    if _is_mapping(hint):
        return {"action": "append", "type": _named(_parse_pairs, "map"), "metavar": spec.metavar or "A=1,B=2"}
    if hint in (str, int, float, Path):
        return {"type": hint, "metavar": spec.metavar or hint.__name__.upper()}
    raise TypeError(f"flag {spec.names[0]}: no reader for {hint}")


def _named(func: typing.Callable[[str], Any], name: str) -> typing.Callable[[str], Any]:
    # argparse takes the name of the type for its message.
    def read(text: str) -> Any:
        return func(text)

    read.__name__ = name
    return read


def _parse_bool(text: str) -> bool:
    values = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def _parse_pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise ValueError(text)
        pairs[key] = value
    return pairs
