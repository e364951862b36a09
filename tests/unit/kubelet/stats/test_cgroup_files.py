"""Reading the kernel's files."""

from __future__ import annotations

import os
from pathlib import Path

from tiphys_kubelet.stats.cgroup_files import CgroupFiles
from tiphys_kubelet.stats.readings import Reading


def write(root: Path, files: dict[str, str]) -> None:
    """Files by their path below the root."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_version_1_counts_without_the_file_cache_that_can_go(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "cpuacct/kubepods/pod1/cpuacct.usage": "123456789\n",
            "memory/kubepods/pod1/memory.usage_in_bytes": "5000\n",
            "memory/kubepods/pod1/memory.stat": "cache 9\nrss 1\ntotal_rss 2000\ntotal_inactive_file 1200\n",
        },
    )
    assert CgroupFiles(tmp_path).read("/kubepods/pod1", 7) == Reading(7, 123456789, 3800, 5000, 2000)


def test_version_2_counts_the_same(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "cgroup.controllers": "cpu memory\n",
            "kubepods/pod1/cpu.stat": "usage_usec 123456\nuser_usec 100000\n",
            "kubepods/pod1/memory.current": "5000\n",
            "kubepods/pod1/memory.stat": "anon 2000\nfile 3000\ninactive_file 6000\n",
        },
    )
    assert CgroupFiles(tmp_path).read("kubepods/pod1", 7) == Reading(7, 123456000, 0, 5000, 2000)


def test_group_that_is_gone_has_no_reading(tmp_path: Path) -> None:
    assert CgroupFiles(tmp_path).read("/kubepods/pod1", 7) is None
    write(tmp_path, {"cpuacct/half/cpuacct.usage": "1"})
    assert CgroupFiles(tmp_path).read("/half", 7) is None


def test_whole_machine_is_read_from_proc(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "stat": "cpu  100 20 30 4000 500 6 7 8 50 0\ncpu0 1 1 1 1\n",
            "meminfo": "MemTotal: 1000 kB\nMemFree: 300 kB\nInactive(file): 100 kB\nAnonPages: 50 kB\n",
        },
    )
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    wanted = Reading(7, 163 * tick_ns, 600 * 1024, 700 * 1024, 50 * 1024)
    assert CgroupFiles(tmp_path, proc=tmp_path).read("/", 7) == wanted


def test_this_machine_itself_can_be_read() -> None:
    reading = CgroupFiles().read("/", 7)
    assert reading is not None
    assert reading.cpu_ns > 0
    assert 0 < reading.working_set_bytes <= reading.usage_bytes
