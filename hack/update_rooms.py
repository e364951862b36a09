"""Writes the table of flags into each room's README, between its two marks, from the options themselves."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hack.rooms import FLAGS_BEGIN, FLAGS_END, FLAGS_OF, flags_table, rooms, table_of


def with_flags(text: str, table: str) -> str:
    """The README with its tables: the room's between its marks, where it has one, and those that name their module.

    Raises ValueError where a mark is missing.
    """
    if table:
        before, begin, rest = text.partition(FLAGS_BEGIN)
        _, end, after = rest.partition(FLAGS_END)
        if not begin or not end:
            raise ValueError(f"no {FLAGS_BEGIN} … {FLAGS_END}")
        text = f"{before}{FLAGS_BEGIN}\n{table}\n{FLAGS_END}{after}"
    return FLAGS_OF.sub(lambda found: f"{found[1]}{table_of(found[2])}\n", text)


def main() -> int:
    """Updates every README; returns the exit code."""
    for room in rooms():
        if room.readme.is_file():
            text = room.readme.read_text()
            fresh = with_flags(text, flags_table(room))
            if fresh != text:
                room.readme.write_text(fresh)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
