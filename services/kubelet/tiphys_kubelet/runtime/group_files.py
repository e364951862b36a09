"""The kernel's files of one group of processes that say what it may use, in cgroup version 1 and 2.

Everything blocks for microseconds. Source: the kernel's sched-bwc.rst, cgroup-v1/memory.rst and cgroup-v2.rst; weights
are of shares what runc makes of them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tiphys_kubelet.runtime.limits import Limits
from tiphys_kubelet.runtime.resources import MIN_SHARES, QUOTA_PERIOD_US

# What version 1 shows where nothing is limited: as many whole pages as a signed number holds.
_UNLIMITED = 1 << 62
_MOST_SHARES, _MOST_WEIGHT = 262144, 10000


@dataclass(frozen=True, slots=True)
class GroupFiles:
    """A group below a mount, named from the root of the hierarchies without a leading slash."""

    mount: Path
    group: str

    def read(self, shares: int = 0) -> Limits | None:
        """What the group may use; None where there is no such group.

        Version 2 keeps a weight, to which many shares come: where these do they are what is told.
        """
        try:
            return self._read_2(shares) if self._is_version_2 else self._read_1()
        except (OSError, ValueError, IndexError):
            return None  # there is none, or it went while it was read

    def write(self, limits: Limits) -> None:
        """Makes the group if need be and gives it its limits. Raises OSError."""
        if self._is_version_2:
            self._write_2(limits)
        else:
            self._write_1(limits)

    def shares_below(self) -> int:
        """The sum of the shares of the groups in this one."""
        total = 0
        for folder in [path for path in (self._all if self._is_version_2 else self._cpu).glob("*/") if path.is_dir()]:
            with suppress(OSError, ValueError):  # it went while it was read
                if self._is_version_2:
                    total += shares_of(int((folder / "cpu.weight").read_text()))
                else:
                    total += int((folder / "cpu.shares").read_text())
        return total

    def memory_use(self) -> int | None:
        """Bytes in use that are no cache that could go; None where nobody counts."""
        folder, use, cache = self._memory, "memory.usage_in_bytes", "total_inactive_file"
        if self._is_version_2:
            folder, use, cache = self._all, "memory.current", "inactive_file"
        try:
            total = int((folder / use).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
            return max(0, total - next(int(line.split()[1]) for line in lines if line.split()[0] == cache))
        except (OSError, ValueError, IndexError, StopIteration):
            return None

    @property
    def _is_version_2(self) -> bool:
        return (self.mount / "cgroup.controllers").exists()

    @property
    def _all(self) -> Path:
        return self.mount / self.group

    @property
    def _cpu(self) -> Path:
        return self.mount / "cpu" / self.group

    @property
    def _memory(self) -> Path:
        return self.mount / "memory" / self.group

    def _read_1(self) -> Limits:
        quota = int((self._cpu / "cpu.cfs_quota_us").read_text())
        period = int((self._cpu / "cpu.cfs_period_us").read_text())
        memory = int((self._memory / "memory.limit_in_bytes").read_text())
        return Limits(
            int((self._cpu / "cpu.shares").read_text()),
            max(0, quota) * QUOTA_PERIOD_US // period,
            memory if memory < _UNLIMITED else 0,
        )

    def _write_1(self, limits: Limits) -> None:
        for folder in (self._cpu, self._memory):
            folder.mkdir(parents=True, exist_ok=True)
        _write(self._memory / "memory.limit_in_bytes", limits.memory_bytes or -1)
        _write(self._cpu / "cpu.shares", limits.cpu_shares)
        _write(self._cpu / "cpu.cfs_period_us", QUOTA_PERIOD_US)
        _write(self._cpu / "cpu.cfs_quota_us", limits.cpu_quota or -1)

    def _read_2(self, shares: int) -> Limits:
        weight = int((self._all / "cpu.weight").read_text())
        quota, period = (self._all / "cpu.max").read_text().split()
        memory = (self._all / "memory.max").read_text().strip()
        return Limits(
            shares if shares and weight_of(shares) == weight else shares_of(weight),
            0 if quota == "max" else int(quota) * QUOTA_PERIOD_US // int(period),
            0 if memory == "max" else int(memory),
        )

    def _write_2(self, limits: Limits) -> None:
        self._all.mkdir(parents=True, exist_ok=True)
        above = self.mount
        for part in Path(self.group).parts:
            # A controller is there below a group only where that group hands it down.
            _write(above / "cgroup.subtree_control", "+cpu +memory")
            above = above / part
        _write(self._all / "memory.max", limits.memory_bytes or "max")
        _write(self._all / "cpu.weight", weight_of(limits.cpu_shares))
        _write(self._all / "cpu.max", f"{limits.cpu_quota or 'max'} {QUOTA_PERIOD_US}")


def weight_of(shares: int) -> int:
    """Version 2's weight of version 1's shares."""
    return 1 + (max(MIN_SHARES, shares) - MIN_SHARES) * (_MOST_WEIGHT - 1) // (_MOST_SHARES - MIN_SHARES)


def shares_of(weight: int) -> int:
    """The least shares that come to the weight."""
    return MIN_SHARES + -(-(weight - 1) * (_MOST_SHARES - MIN_SHARES) // (_MOST_WEIGHT - 1))


def _write(path: Path, value: int | str) -> None:
    path.write_text(str(value))
