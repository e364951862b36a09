"""The audit log's file: what is put aside, and what is kept."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tiphys_apiserver.audit.log_file import LogFile, Rotation

_LINE = b"x" * 600_000 + b"\n"
_START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


class _Time:
    def __init__(self) -> None:
        self.at = _START

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


def test_full_file_is_put_aside_under_its_time(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "audit.log"), Rotation(max_size_mb=1), _Time().now)

    log.write([_LINE, _LINE, _LINE])
    log.close()

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audit-2026-01-31T12-00-01.000.log",
        "audit-2026-01-31T12-00-02.000.log",
        "audit.log",
    ]
    assert all(path.read_bytes() == _LINE for path in tmp_path.iterdir())


def test_only_so_many_old_files_are_kept(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "audit.log"), Rotation(max_size_mb=1, max_backups=1), _Time().now)

    log.write([_LINE] * 4)
    log.close()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit-2026-01-31T12-00-03.000.log", "audit.log"]


def test_old_files_go_by_age(tmp_path: Path) -> None:
    old = tmp_path / "audit-2026-01-01T00-00-00.000.log"
    old.write_bytes(b"")
    long_ago = (_START - timedelta(days=8)).timestamp()
    os.utime(old, (long_ago, long_ago))
    log = LogFile(str(tmp_path / "audit.log"), Rotation(max_size_mb=1, max_age_days=7), _Time().now)

    log.write([_LINE] * 2)
    log.close()

    assert not old.exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_log_of_an_earlier_run_is_added_to_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.log"
    for text in (b"one\n", b"two\n"):
        log = LogFile(str(path), Rotation(), _Time().now)
        log.write([text])
        log.close()

    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600
