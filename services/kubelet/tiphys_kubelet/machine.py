"""What this machine is and has, as a node reports it. Reads /proc, /etc and the disk; blocks for a millisecond."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tiphys_apimachinery.quantity import Format, Quantity

KUBELET_VERSION = "v1.34.0+tiphys.0.1.0"
# Kubernetes' default eviction thresholds, which are held back from what pods may use.
RESERVED_MEMORY_BYTES = 100 * 1024 * 1024
RESERVED_DISK_SHARE = 0.1
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts of a machine; memory and disk in bytes."""

    cpus: int
    memory_bytes: int
    disk_bytes: int
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel_version: str
    os_image: str
    architecture: str

    def capacity(self, max_pods: int) -> dict[str, Quantity]:
        """All that there is."""
        return {
            "cpu": Quantity.of(self.cpus),
            "memory": Quantity.of(self.memory_bytes, Format.BINARY),
            "ephemeral-storage": Quantity.of(self.disk_bytes, Format.BINARY),
            "hugepages-1Gi": Quantity.of(0),
            "hugepages-2Mi": Quantity.of(0),
            "pods": Quantity.of(max_pods),
        }

    def allocatable(self, max_pods: int) -> dict[str, Quantity]:
        """What pods may ask for."""
        amounts = self.capacity(max_pods)
        amounts["memory"] = Quantity.of(max(0, self.memory_bytes - RESERVED_MEMORY_BYTES), Format.BINARY)
        amounts["ephemeral-storage"] = Quantity.of(int(self.disk_bytes * (1 - RESERVED_DISK_SHARE)))
        return amounts


def read_machine(root_dir: Path) -> Machine:
    """Looks at this machine; the disk is the one that holds root_dir."""
    disk = os.statvfs(root_dir)
    machine_id = _text("/etc/machine-id") or _text("/proc/sys/kernel/random/boot_id").replace("-", "")
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_memory_bytes(),
        disk_bytes=disk.f_blocks * disk.f_frsize,
        machine_id=machine_id,
        system_uuid=_text("/sys/class/dmi/id/product_uuid") or machine_id,
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        kernel_version=platform.release(),
        os_image=_os_image(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""  # a container or a small machine need not have the file


def _memory_bytes() -> int:
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _os_image() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.split("=", 1)[1].strip('"')
    return "Linux"


def as_resource_list(amounts: Mapping[str, Quantity]) -> dict[str, str]:
    """Amounts as text."""
    return {name: str(amount) for name, amount in amounts.items()}
