"""Flags of the device plugins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiphys_component.options import LogOptions, flag
from tiphys_device.claimed import CDI_DIR
from tiphys_sdk.device.serve import KUBELET_DIR
from tiphys_sdk.dra.serve import KUBELET_DIR as DRA_KUBELET_DIR


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """Device plugins of a node: NVIDIA GPUs, devices named in a file, or simulated ones."""

    kind: Literal["generic", "nvidia"] = flag("--kind", default="generic", help="which devices to offer")
    config: Path | None = flag("--config", default=None, help="file that names the devices of --kind generic, YAML")
    simulate: str = flag("--simulate", default="", help="offer devices that are not there instead: gpu:8, gpu:8xH100")
    state_dir: Path = flag(
        "--state-dir", default=Path("/run/tiphys-device"), help="where simulated devices keep their files and faults"
    )
    dra_driver: str = flag(
        "--dra-driver", default="", help="offer the simulated devices to claims under this driver name instead"
    )
    kubeconfig: Path | None = flag("--kubeconfig", default=None, help="how a DRA driver reaches the API server")
    node_name: str = flag("--node-name", default="", help="the node whose devices a DRA driver offers")
    kubelet_root: Path = flag(
        "--kubelet-root", default=DRA_KUBELET_DIR, help="the kubelet's folder, in which a DRA driver registers"
    )
    cdi_dir: Path = flag("--cdi-dir", default=CDI_DIR, help="where the runtime finds the CDI files of claims")
    kubelet_dir: Path = flag("--kubelet-dir", default=KUBELET_DIR, help="the kubelet's folder of plugin sockets")
    metrics_address: str = flag("--metrics-address", default="127.0.0.1", help="address of metrics and health")
    metrics_port: int = flag("--metrics-port", default=0, help="port of metrics and health over HTTP; 0 serves none")
