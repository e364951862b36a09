"""The rooms of the project: where each lies, its import package, and the table of its flags."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tiphys_component.options import parse_duration

ROOT = Path(__file__).resolve().parents[1]
FLAGS_BEGIN = "<!-- flags: written by `python -m hack.update_rooms` from the options -->"
# Of a second service in a room, by its module: tiphys_cni.flannel.options.
FLAGS_OF = re.compile(r"(<!-- flags of ([\w.]+): [^\n]* -->\n).*?(?=<!-- end of flags -->)", re.DOTALL)
FLAGS_END = "<!-- end of flags -->"


@dataclass(frozen=True, slots=True)
class Room:
    """One distribution: its folder, and its one import package."""

    path: Path
    package: str

    @property
    def name(self) -> str:
        """The folder below the root, as people say it."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def readme(self) -> Path:
        """Where the room is described."""
        return self.path / "README.md"


def rooms() -> list[Room]:
    """Every folder with a pyproject.toml of its own, by name."""
    paths = [*ROOT.glob("*/pyproject.toml"), *ROOT.glob("*/*/pyproject.toml")]
    return [Room(path.parent, _package_of(path)) for path in sorted(paths)]


def _package_of(pyproject: Path) -> str:
    name: str = tomllib.loads(pyproject.read_text())["project"]["name"]
    return "tiphys" if name == "tiphys-protos" else name.replace("-", "_")


def tracked(*patterns: str) -> list[Path]:
    """The files that git knows and that are there, absolute."""
    listed = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True)
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def flags_table(room: Room) -> str:
    """The Markdown table of the room's flags, as --help has them; empty for a room without a command."""
    if room.package == "tiphys_cli":
        return "\n".join(["| verb | flag or argument | default | meaning |", "|---|---|---|---|", *_verb_rows()])
    if importlib.util.find_spec(f"{room.package}.options") is None:
        return ""
    return table_of(f"{room.package}.options")


def table_of(module: str) -> str:
    """The table of the flags of a module's Options; empty where it has none."""
    options = getattr(importlib.import_module(module), "Options", None)
    if options is None:
        return ""
    return "\n".join(["| flag | default | meaning |", "|---|---|---|", *_flag_rows(options)])


def _flag_rows(options: Any) -> Iterator[str]:
    for field in dataclasses.fields(options):
        for spec in field.metadata.values():
            names = ", ".join(f"`{name}`" for name in spec.names)
            yield f"| {names} | {_default(field, spec.duration)} | {_cell(spec.help)} |"


def _default(field: dataclasses.Field[Any], is_duration: bool) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        return "required" if field.default_factory is dataclasses.MISSING else ""
    if value in (None, "", ()):
        return ""
    if is_duration:
        text = f"{int(value)}s" if value == int(value) else f"{value:g}s"
        assert parse_duration(text) == value
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{text}`"


def _verb_rows() -> Iterator[str]:
    tiphys = importlib.import_module("tiphys_cli.main").tiphys
    yield from _rows_of(tiphys, ())


def _rows_of(group: click.Group, words: tuple[str, ...]) -> Iterator[str]:
    context = click.Context(group)
    for verb in group.list_commands(context):
        command = group.get_command(context, verb)
        path = (*words, verb)
        if isinstance(command, click.Group):
            yield from _rows_of(command, path)
        elif command is not None:
            for param in command.params:
                if isinstance(param, click.Option) and param.hidden:
                    continue
                yield f"| `{' '.join(path)}` | {_param_cells(param)} |"


def _param_cells(param: click.Parameter) -> str:
    if isinstance(param, click.Option):
        text, _, noted = (param.help or "").partition("[default: ")
        default = noted.rstrip("]") if noted else param.default
        shown = f"`{default}`" if isinstance(default, str) and default else ""
        return f"{', '.join(f'`{name}`' for name in param.opts)} | {shown} | {_cell(text.strip())}"
    return f"`{param.human_readable_name}` | {'required' if param.required else ''} | "


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
