"""Checks that the documents speak of what is there: each path they name exists, and each name beside a path is in it.

In backquotes, a text with a slash is a path if its first folder exists at the root, or in a README's own room. Names in
backquotes right behind a Python file and a colon are looked up in that file: `hack/rooms.py`: `rooms`, `Room.name`.
Run by `make lint`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hack.rooms import ROOT, rooms, tracked

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)+/?)`")
_NAMES = re.compile(r"`([\w./-]+\.py)`:\s+(`[\w.]+`(?:,?\s+(?:and\s+)?`[\w.]+`)*)")
_NAME = re.compile(r"`([\w.]+)`")
# Made by tools and not in git, or not of this project.
_MADE = {".venv/bin/tiphys"}


def main() -> int:
    """Prints every word that leads nowhere; returns 1 if there was one."""
    offences = [offence for document in documents() for offence in check(document)]
    for offence in offences:
        print(offence)
    return 1 if offences else 0


def documents() -> list[Path]:
    """Every Markdown file but those that come with the fact tables."""
    return [path for path in tracked("*.md") if "conformance/contracts" not in path.as_posix()]


def check(document: Path) -> Iterator[str]:
    """What the document names and is not there."""
    name = document.relative_to(ROOT).as_posix()
    text = _FENCE.sub("", document.read_text())
    bases = _bases(document)
    for match in _PATH.finditer(text):
        path = match[1]
        if path not in _MADE and not _is_there(path, bases):
            yield f"{name}: `{path}` is not there"
    for match in _NAMES.finditer(text):
        file = ROOT / match[1]
        known = _names_in(file) if file.is_file() else frozenset[str]()
        for found in _NAME.finditer(match[2]):
            if found[1] not in known:
                yield f"{name}: {match[1]} has no `{found[1]}`"


def _bases(document: Path) -> list[Path]:
    """Folders that paths may be relative to: the root, and for a room's README the room and its package."""
    own = [
        folder for room in rooms() if room.path == document.parent for folder in (room.path, room.path / room.package)
    ]
    return [*own, ROOT]


def _is_there(path: str, bases: list[Path]) -> bool:
    """True for what exists, and for what begins in no folder of ours and so is no path of ours."""
    ours = [base for base in bases if (base / path.split("/", 1)[0]).is_dir()]
    return not ours or any((base / path).exists() or (base / f"{path.rstrip('/')}.py").exists() for base in ours)


@lru_cache(maxsize=256)
def _names_in(file: Path) -> frozenset[str]:
    """Functions, classes, methods and constants of a module, methods as Class.method."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.ClassDef():
                found.add(node.name)
                members = [m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)]
                found.update(f"{node.name}.{member.name}" for member in members)
            case ast.Assign(targets=targets):
                found.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=identifier)):
                found.add(identifier)
    return frozenset(found)


if __name__ == "__main__":
    raise SystemExit(main())
