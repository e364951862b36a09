"""NVIDIA's management library, as much of it as the plugin asks for. Every call blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pynvml


class NvmlFailure(Exception):
    """The library is not there, or a call failed."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. minor is the number of its device file; numa_node is None where the machine has no such nodes."""

    uuid: str
    minor: int
    name: str
    numa_node: int | None = None
    mig: bool = False


@dataclass(frozen=True, slots=True)
class Xid:
    """A fault that the driver told of; without a uuid it may be any GPU."""

    number: int
    uuid: str


class Nvml(Protocol):
    """What the plugin asks of the library, inside its context. Calls raise NvmlFailure."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def driver_version(self) -> str:
        """The driver's version, as 535.129.03."""

    def gpus(self) -> Sequence[Gpu]:
        """All GPUs, in the library's order."""

    def watch(self, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
        """Begins to take note of faults; returns the GPUs that can't tell of theirs."""

    def wait_fault(self, timeout_s: float) -> Xid | None:
        """The next fault; None when there was none in time."""

    def answers(self, gpu: Gpu) -> bool:
        """The GPU can be spoken to."""


class NvmlLibrary:
    """The real one, through NVIDIA's own binding."""

    def __init__(self) -> None:
        self._faults: object = None

    def __enter__(self) -> Self:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as err:
            raise NvmlFailure(f"NVIDIA's driver can't be used: {err}") from err
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._faults is not None:
            pynvml.nvmlEventSetFree(self._faults)
        pynvml.nvmlShutdown()

    def driver_version(self) -> str:
        """The driver's version."""
        return _text(pynvml.nvmlSystemGetDriverVersion())

    def gpus(self) -> Sequence[Gpu]:
        """All GPUs."""
        try:
            return [_gpu(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError as err:
            raise NvmlFailure(f"GPUs can't be listed: {err}") from err

    def watch(self, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
        """Registers for critical faults and memory errors that can't be corrected."""
        wanted = (
            pynvml.nvmlEventTypeXidCriticalError
            | pynvml.nvmlEventTypeDoubleBitEccError
            | pynvml.nvmlEventTypeSingleBitEccError
        )
        deaf = []
        try:
            self._faults = pynvml.nvmlEventSetCreate()
            for gpu in gpus:
                handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
                supported = pynvml.nvmlDeviceGetSupportedEventTypes(handle)
                if supported & wanted & pynvml.nvmlEventTypeXidCriticalError:
                    pynvml.nvmlDeviceRegisterEvents(handle, supported & wanted, self._faults)
                else:
                    deaf.append(gpu)
        except pynvml.NVMLError:
            # As in a sandbox or a virtual machine: that a GPU answers is then all that is known of its health.
            return gpus
        return deaf

    def wait_fault(self, timeout_s: float) -> Xid | None:
        """The next fault of kind XID."""
        try:
            event = pynvml.nvmlEventSetWait_v2(self._faults, int(timeout_s * 1000))
        except pynvml.NVMLError_Timeout:
            return None
        except pynvml.NVMLError as err:
            raise NvmlFailure(f"faults can't be followed: {err}") from err
        if event.eventType != pynvml.nvmlEventTypeXidCriticalError:
            return None
        try:
            uuid = _text(pynvml.nvmlDeviceGetUUID(event.device))
        except pynvml.NVMLError:
            # A GPU that fell off the bus can't say who it is.
            uuid = ""
        return Xid(int(event.eventData), uuid)

    def answers(self, gpu: Gpu) -> bool:
        """Asks for a number that every GPU has."""
        try:
            pynvml.nvmlDeviceGetMinorNumber(pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid))
        except pynvml.NVMLError:
            return False
        return True


def _gpu(handle: object) -> Gpu:
    return Gpu(
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        minor=int(pynvml.nvmlDeviceGetMinorNumber(handle)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        numa_node=_numa_node(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId)),
        mig=_has_mig(handle),
    )


def _has_mig(handle: object) -> bool:
    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError_NotSupported:
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _numa_node(bus_id: str) -> int | None:
    """What the kernel says of the PCI device; the library writes its domain with eight digits, the kernel with four."""
    domain, _, rest = bus_id.lower().partition(":")
    path = Path(f"/sys/bus/pci/devices/{domain[-4:]}:{rest}/numa_node")
    try:
        node = int(path.read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
