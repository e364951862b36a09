"""What a CSI driver is made of."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.csi.controller import Controller
from tiphys_sdk.csi.node import Node

# Source: csi.v1's specification, GetPluginInfoResponse.name.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A driver: its name in the form of a domain, and the services its author wrote.

    topology says that volumes can't be reached from every node; NodeGetInfo and the volumes then say from where.
    expansion is how volumes grow, None for not at all. probe answers whether the driver can be used now.
    """

    name: str
    version: str = "0.1.0"
    controller: Controller | None = None
    node: Node | None = None
    topology: bool = False
    expansion: csi_pb2.PluginCapability.VolumeExpansion.Type.ValueType | None = None
    probe: Callable[[], Awaitable[bool]] | None = None

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(f"driver name {self.name!r} must be at most 63 letters, digits, '.' and '-'")
