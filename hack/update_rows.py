"""Writes docs/rows.md anew: which features have tests that carry their name, and where; `make verify` wants it fresh.

A test that proves a row of the list of features is named for it: `test_A11_…`. What is listed runs in `make test` (or,
where it is marked slow, in `make test-long`), so a row with tests in this table is one whose tests pass. A row may be
marked in hack/rows.yaml as not due, with the reason; until it has tests it is not counted then.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "rows.md"
# A test may prove several rows: test_H11_B35_what_it_says.
_NAME = re.compile(r"test_((?:[A-M][0-9]+_)+)")
_HEAD = """# What works, row by row

Made by `python -m hack.update_rows` from `hack/rows.yaml` and from the names of the tests: a test that proves a row
carries its name. Do not edit it. A row without tests is not done, or not yet shown; one that is not due says why and
is not counted.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the list; not_due says why it need not be there, empty where it must."""

    name: str
    title: str
    not_due: str
    tests: Mapping[str, int]

    @classmethod
    def read(cls, name: str, item: str | Mapping[str, str], tests: Mapping[str, Mapping[str, int]]) -> Row:
        """Reads what rows.yaml says: a title, or a title and a reason. What has tests is due. Raises KeyError."""
        found = tests.get(name, {})
        if isinstance(item, str):
            return cls(name, item, "", found)
        return cls(name, item["title"], "" if found else item["not_due"], found)


def main() -> int:
    """Write the page; returns the exit code."""
    features: Mapping[str, Mapping[str, Any]] = yaml.safe_load((ROOT / "hack" / "rows.yaml").read_text())
    PAGE.write_text(page(features, named_tests()))
    return 0


def named_tests() -> dict[str, dict[str, int]]:
    """For each row the test files, relative to docs/, with how many tests of it they hold."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in _functions(ast.parse(path.read_text())):
            match = _NAME.match(name)
            for row in match[1].rstrip("_").split("_") if match else ():
                found[row][path.relative_to(ROOT).as_posix()] += 1
    return found


def _functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name


def page(features: Mapping[str, Mapping[str, Any]], tests: Mapping[str, Mapping[str, int]]) -> str:
    """The whole page."""
    parts = [_HEAD]
    for letter, section in features.items():
        rows = [Row.read(name, item, tests) for name, item in section["rows"].items()]
        due = [row for row in rows if not row.not_due]
        shown = sum(bool(row.tests) for row in due)
        parts.append(
            f"\n## {letter}. {section['title']} ({shown} of {len(due)})\n\n| row | feature | tests |\n|---|---|---|\n"
        )
        for row in rows:
            told = f"not due: {row.not_due}" if row.not_due else _links(row.tests)
            parts.append(f"| {row.name} | {row.title.replace('|', '/')} | {told} |\n")
    return "".join(parts)


def _links(files: Mapping[str, int]) -> str:
    return ", ".join(
        f"[{Path(name).stem.removeprefix('test_')}](../{name})" + (f" ({count})" if count > 1 else "")
        for name, count in files.items()
    )


if __name__ == "__main__":
    raise SystemExit(main())
