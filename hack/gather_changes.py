"""`python -m hack.gather_changes VERSION`: moves what lies under changes/ to the top of CHANGELOG.md."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MARK = "<!-- releases, the newest first -->\n"


def section(version: str, day: str, entries: list[str]) -> str:
    """One release: its heading, and an item for each entry with its lines joined."""
    items = "\n".join(f"- {' '.join(entry.split())}" for entry in entries)
    return f"\n## {version} ({day})\n\n{items}\n"


def main(argv: list[str]) -> int:
    """Writes CHANGELOG.md and deletes the files gathered; returns the exit code."""
    files = [path for path in sorted((ROOT / "changes").glob("*.md")) if path.name != "README.md"]
    if len(argv) != 1 or not files:
        print("usage: python -m hack.gather_changes VERSION, with files under changes/", file=sys.stderr)
        return 2
    log = ROOT / "CHANGELOG.md"
    before, mark, after = log.read_text().partition(_MARK)
    if not mark:
        print(f"CHANGELOG.md has no line {_MARK.strip()}", file=sys.stderr)
        return 1
    release = section(argv[0], datetime.now(UTC).date().isoformat(), [path.read_text() for path in files])
    log.write_text(before + mark + release + after)
    for path in files:
        path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
