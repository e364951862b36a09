"""The executables that are installed, by name. A new plugin is one line here."""

from __future__ import annotations

from collections.abc import Mapping

from tiphys_cni.ipam import host_local
from tiphys_cni.main import bridge, loopback
from tiphys_cni.meta import flannel, portmap
from tiphys_sdk.cni.skel import Plugin

_ALL = (bridge.PLUGIN, loopback.PLUGIN, host_local.PLUGIN, portmap.PLUGIN, flannel.PLUGIN)
PLUGINS: Mapping[str, Plugin] = {plugin.name: plugin for plugin in _ALL}
