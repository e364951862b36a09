"""Which files of the node an NVIDIA driver needs in a container. The choosing is pure."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from tiphys_sdk.device.plugin import DeviceNode, Mount

DRIVER_FOLDER = "/usr/local/nvidia"
# Files of the driver beside those of the single GPUs; which there are depends on what has been loaded.
SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
_LIBRARIES = ("libcuda.so", "libcudadebugger.so", "libnvidia-", "libnvcuvid.so", "libnvoptix.so")
_PROGRAMS = ("nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server")
_FOLDERS = (
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib64"),
    Path("/usr/lib"),
    Path("/usr/local/nvidia/lib64"),
)


def library_names(names: Iterable[str], version: str) -> list[str]:
    """The driver's libraries among the files of a folder: those of this version, and the names that point to them."""
    ours = [name for name in names if name.startswith(_LIBRARIES) and ".so" in name]
    versioned = {name.removesuffix(f".so.{version}") for name in ours if name.endswith(f".so.{version}")}
    return sorted(name for name in ours if name.partition(".so")[0] in versioned)


def find_libraries(version: str, folders: Sequence[Path] = _FOLDERS) -> list[Path]:
    """The driver's libraries on this machine, from the first folder that has any. Blocks."""
    for folder in folders:
        names = library_names((entry.name for entry in folder.iterdir()), version) if folder.is_dir() else []
        if names:
            return [folder / name for name in names]
    return []


def driver_mounts(libraries: Iterable[Path]) -> tuple[Mount, ...]:
    """Libraries and programs under /usr/local/nvidia, where images for GPUs look for them. Blocks."""
    mounts = [Mount(str(path), f"{DRIVER_FOLDER}/lib64/{path.name}") for path in libraries]
    programs = [found for name in _PROGRAMS if (found := shutil.which(name)) is not None]
    return (*mounts, *(Mount(path, f"{DRIVER_FOLDER}/bin/{Path(path).name}") for path in programs))


def gpu_nodes(minors: Iterable[int], root: Path = Path("/")) -> tuple[DeviceNode, ...]:
    """The device files of GPUs, and of the shared ones those that there are. Blocks."""
    shared = [path for path in SHARED_NODES if (root / path.lstrip("/")).exists()]
    return tuple(DeviceNode(path) for path in [*(f"/dev/nvidia{minor}" for minor in minors), *shared])
