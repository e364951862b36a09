"""Hands a call to another plugin: one of ours in process, any other by its executable."""

from __future__ import annotations

from collections.abc import Mapping

from tiphys_cni.ipam import host_local
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.delegate import delegate
from tiphys_sdk.cni.skel import Plugin
from tiphys_sdk.cni.spec import Result

# Address management that needs no process of its own.
IN_PROCESS: Mapping[str, Plugin] = {host_local.PLUGIN.name: host_local.PLUGIN}


def ipam(call: Call, command: str) -> Result | None:
    """Runs the verb of the configuration's ipam plugin; ADD gives its result. Raises CNIError."""
    name = str((call.conf.get("ipam") or {}).get("type", ""))
    if not name:
        return None
    plugin = IN_PROCESS.get(name)
    if plugin is None:
        return delegate(call, name, verb=command)
    if command == "ADD":
        return plugin.add(call)
    verbs = {"DEL": plugin.delete, "CHECK": plugin.check, "GC": plugin.collect, "STATUS": plugin.status}
    verbs[command](call)
    return None
