"""Checks the layout that STYLE asks of every room, and the walls of size; prints each offence and fails if any.

Run by `make lint`. A README's flags are compared with the options; `python -m hack.update_rooms` writes them anew.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hack.rooms import ROOT, Room, flags_table, rooms, tracked
from hack.update_rooms import with_flags

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL = 4

# Not ours to cut: file, and why.
EXEMPT = {
    "tests/conformance/contracts/check_contracts.py": "comes with the published fact tables, as they were handed over",
}

# A room may hold its packaging, its README, a Dockerfile and its package, as its folder is on the import path.
ROOM_ENTRIES = {"pyproject.toml", "README.md", "Dockerfile"}
EXTRA_ENTRIES = {"protos": {"buf.yaml", "hatch_build.py"}}

# What every README speaks of, if only to say that there is none.
SUBJECTS = ("flags", "port", "metrics", "readiness", "example")
METRIC = re.compile(r"\.(?:counter|gauge|gauge_function|histogram)\(\s*\"(\w+)\"")

FOREIGN = (
    (re.compile(r"(?<![\w.$}])/(?:home/(?!with)[a-z]\w*|Users|root|work)/\w"), "path of a development machine"),
    (
        re.compile(
            r"https?://[\w.-]*(?:pypi|pythonhosted|artifactory|nexus|jfrog|mirror|debian|ubuntu|alpinelinux|npmjs|dl\.k8s)"
            r"[\w.-]*|--(?:extra-)?index-url|PIP_INDEX_URL"
        ),
        "package host",
    ),
)
FOREIGN_EXEMPT = {
    "hack/verify_rooms.py": "holds the patterns",
    "LICENSE": "is what it is",
}


def main() -> int:
    """Prints every offence; returns 1 if there was one."""
    offences = [*layout(), *sources(), *foreign_words()]
    for offence in offences:
        print(offence)
    if offences:
        print(f"{len(offences)} offence(s) against the rooms' rules")
    return 1 if offences else 0


def layout() -> Iterator[str]:
    """What a room lacks, or has and should not."""
    for room in rooms():
        package = room.path / room.package
        if not (package / "__init__.py").is_file():
            yield f"{room.name}: no import package {room.package}"
        if not (package / "py.typed").is_file():
            yield f"{room.name}: no {room.package}/py.typed"
        allowed = {room.package, *ROOM_ENTRIES, *EXTRA_ENTRIES.get(room.name, set())}
        found = {path.relative_to(room.path).parts[0] for path in tracked(room.name)}
        for entry in sorted(found - allowed):
            yield f"{room.name}/{entry}: only packaging, README and the package lie in a room"
        yield from _readme(room)
    for path in tracked("*__init__.py"):
        if not is_only_docstring(path):
            yield f"{_name(path)}: __init__.py holds a docstring and nothing to run"


def _readme(room: Room) -> Iterator[str]:
    if not room.readme.is_file():
        yield f"{room.name}: no README.md"
        return
    text = room.readme.read_text()
    if not text.startswith("# "):
        yield f"{room.name}/README.md: begins with no title"
    for subject in SUBJECTS:
        if subject not in text.lower():
            yield f"{room.name}/README.md: says nothing of {subject}"
    for metric in _metrics(room):
        if metric not in text:
            yield f"{room.name}/README.md: does not name the metric {metric}"
    try:
        is_fresh = with_flags(text, flags_table(room)) == text
    except ValueError as err:
        yield f"{room.name}/README.md: {err}"
        return
    if not is_fresh:
        yield f"{room.name}/README.md: flags differ from the options; run `python -m hack.update_rooms`"


def _metrics(room: Room) -> Iterator[str]:
    """Names of the metrics that the room's code registers."""
    for path in tracked(f"{room.name}/*.py"):
        yield from METRIC.findall(path.read_text())


def is_only_docstring(path: Path) -> bool:
    """Whether an __init__.py has nothing to run."""
    body = ast.parse(path.read_text()).body
    in_room = not _name(path).startswith("tests/")
    documented = len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    # Folders of tests and of contracts are packages only so that file names may recur.
    return documented or (not body and (not in_room or _name(path).startswith("protos/")))


def sources() -> Iterator[str]:
    """Files and functions beyond their walls, and tasks that nobody owns."""
    for path in tracked("*.py"):
        name = _name(path)
        if name in EXEMPT:
            continue
        text = path.read_text()
        lines = text.count("\n")
        if lines > MAX_FILE_LINES:
            yield f"{name}: {lines} lines, at most {MAX_FILE_LINES}"
        tree = ast.parse(text, name)
        is_test = name.startswith("tests/")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from function_offences(node, name, check_arguments=not is_test)
            elif isinstance(node, ast.Call) and not is_test and makes_bare_task(node):
                yield f"{name}:{node.lineno}: a task lives in a TaskGroup"


def function_offences(
    node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, *, check_arguments: bool
) -> Iterator[str]:
    """Where a function is too long, or takes too much by position."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if lines > MAX_FUNCTION_LINES:
        yield f"{name}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"
    if not check_arguments:
        return
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    count = len(positional) - (positional[:1] in (["self"], ["cls"]))
    if count > MAX_POSITIONAL:
        yield f"{name}:{node.lineno}: {node.name} takes {count} positional arguments, at most {MAX_POSITIONAL}"


def makes_bare_task(call: ast.Call) -> bool:
    """True for asyncio.create_task, loop.create_task and ensure_future, whatever the loop is called."""
    func = call.func
    if isinstance(func, ast.Name):
        return func.id in {"create_task", "ensure_future"}
    if not isinstance(func, ast.Attribute):
        return False
    if func.attr == "ensure_future":
        return True
    owner = ast.unparse(func.value)
    return func.attr == "create_task" and bool(re.search(r"asyncio|loop", owner))


def foreign_words() -> Iterator[str]:
    """Paths of the machine that somebody worked on, and hosts that packages came from, in any tracked file."""
    for path in tracked():
        name = _name(path)
        if name in FOREIGN_EXEMPT or name.startswith("tests/conformance/contracts/"):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for pattern, what in FOREIGN:
            for match in pattern.finditer(text):
                yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}: {match[0]}"


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    raise SystemExit(main())
