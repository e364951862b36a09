"""Flags of the device plugins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiphys_component.options import LogOptions, flag
from tiphys_sdk.device.serve import KUBELET_DIR


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """Device plugins of a node: NVIDIA GPUs, devices named in a file, or simulated ones."""

    kind: Literal["generic", "nvidia"] = flag("--kind", default="generic", help="which devices to offer")
    config: Path | None = flag("--config", default=None, help="file that names the devices of --kind generic, YAML")
    simulate: str = flag("--simulate", default="", help="offer devices that are not there instead: gpu:8, gpu:8xH100")
    state_dir: Path = flag(
        "--state-dir", default=Path("/run/tiphys-device"), help="where simulated devices keep their files and faults"
    )
    kubelet_dir: Path = flag("--kubelet-dir", default=KUBELET_DIR, help="the kubelet's folder of plugin sockets")
    metrics_address: str = flag("--metrics-address", default="127.0.0.1", help="address of metrics and health")
    metrics_port: int = flag("--metrics-port", default=0, help="port of metrics and health over HTTP; 0 serves none")
