"""What a group of processes uses, from the kernel's own files, in cgroup version 1 and 2. Blocks for microseconds.

The root of version 2 has no memory.current, and that of version 1 counts what is nobody's: of the machine as a whole
/proc tells. Source: the kernel's cgroup-v1/memory.rst, cgroup-v2.rst and proc.rst.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tiphys_kubelet.runtime.cgroups import CGROUP_MOUNT
from tiphys_kubelet.stats.readings import Reading

_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CgroupFiles:
    """Reads groups below a mount. A group is named as the runtime names it, from the root of the hierarchies."""

    mount: Path = CGROUP_MOUNT
    proc: Path = Path("/proc")

    def read(self, group: str, at_ns: int) -> Reading | None:
        """The use of a group, / for the whole machine; None where there is no such group."""
        name = group.strip("/")
        try:
            if not name:
                return self._machine(at_ns)
            if (self.mount / "cgroup.controllers").exists():
                return _version_2(self.mount / name, at_ns)
            return _version_1(self.mount, name, at_ns)
        except (OSError, KeyError, ValueError, IndexError):
            return None  # a group that went while it was read, or that the kernel does not count

    def _machine(self, at_ns: int) -> Reading:
        ticks = [int(word) for word in (self.proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        # user nice system idle iowait irq softirq steal: idle, iowait and stolen time are nobody's use.
        used = sum(ticks[:3]) + sum(ticks[5:7])
        memory = _pairs((self.proc / "meminfo").read_text().replace(":", ""))
        usage = (memory["MemTotal"] - memory["MemFree"]) * 1024
        working_set = max(0, usage - memory.get("Inactive(file)", 0) * 1024)
        rss = memory.get("AnonPages", 0) * 1024
        return Reading(at_ns, used * _NANO // os.sysconf("SC_CLK_TCK"), working_set, usage, rss)


def _version_2(group: Path, at_ns: int) -> Reading:
    cpu = _pairs((group / "cpu.stat").read_text())["usage_usec"] * 1000
    usage = int((group / "memory.current").read_text())
    memory = _pairs((group / "memory.stat").read_text())
    return Reading(at_ns, cpu, max(0, usage - memory["inactive_file"]), usage, memory["anon"])


def _version_1(mount: Path, name: str, at_ns: int) -> Reading:
    cpu = int((mount / "cpuacct" / name / "cpuacct.usage").read_text())
    folder = mount / "memory" / name
    usage = int((folder / "memory.usage_in_bytes").read_text())
    memory = _pairs((folder / "memory.stat").read_text())
    return Reading(at_ns, cpu, max(0, usage - memory["total_inactive_file"]), usage, memory["total_rss"])


def _pairs(text: str) -> dict[str, int]:
    """Lines of a name and a number, whatever stands behind them."""
    words = (line.split() for line in text.splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) >= 2 and line[1].isdigit()}
