"""Writes the table of flags into each room's README, between its two marks, from the options themselves."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hack.rooms import FLAGS_BEGIN, FLAGS_END, flags_table, rooms


def with_flags(text: str, table: str) -> str:
    """The README with this table between its marks. Raises ValueError where a mark is missing."""
    before, begin, rest = text.partition(FLAGS_BEGIN)
    _, end, after = rest.partition(FLAGS_END)
    if not begin or not end:
        raise ValueError(f"no {FLAGS_BEGIN} … {FLAGS_END}")
    return f"{before}{FLAGS_BEGIN}\n{table}\n{FLAGS_END}{after}"


def main() -> int:
    """Updates every README; returns the exit code."""
    for room in rooms():
        table = flags_table(room)
        if table:
            room.readme.write_text(with_flags(room.readme.read_text(), table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
