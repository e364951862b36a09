"""Flags of the hostpath driver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiphys_component.options import flag
from tiphys_sdk.csi.main import Options as DriverOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(DriverOptions):
    """CSI driver hostpath.csi.tiphys.dev: volumes are folders of this node."""

    state_dir: Path = flag("--state-dir", default=Path("/var/lib/tiphys/csi-hostpath"), help="folder of the volumes")
    attach: bool = flag("--attach", default=False, help="have the cluster attach volumes before they are staged")
    max_volume_size: str = flag("--max-volume-size", default="1Ti", help="largest volume, as a quantity")
    capacity: str = flag(
        "--capacity", default="0", help="all volumes together, as a quantity; 0 promises nothing and refuses nothing"
    )
    max_volumes_per_node: int = flag("--max-volumes-per-node", default=0, help="most volumes in use; 0 for no limit")
