"""Hands a call to another plugin: one of ours in process, any other by its executable."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tiphys_cni.ipam import host_local
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.skel import Plugin
from tiphys_sdk.cni.spec import CNIError, ErrorCode, Result

_TIMEOUT_S = 60.0
# Address management that needs no process of its own.
IN_PROCESS: Mapping[str, Plugin] = {host_local.PLUGIN.name: host_local.PLUGIN}


def ipam(call: Call, command: str) -> Result | None:
    """Runs the verb of the configuration's ipam plugin; ADD gives its result. Raises CNIError."""
    name = str((call.conf.get("ipam") or {}).get("type", ""))
    if not name:
        return None
    plugin = IN_PROCESS.get(name)
    if plugin is None:
        return _execute(replace(call, command=command), name)
    if command == "ADD":
        return plugin.add(call)
    verbs = {"DEL": plugin.delete, "CHECK": plugin.check, "GC": plugin.collect, "STATUS": plugin.status}
    verbs[command](call)
    return None


def _execute(call: Call, name: str) -> Result | None:
    folder = next((p for p in call.path.split(":") if os.access(Path(p) / name, os.X_OK)), None)
    if folder is None or "/" in name:
        raise CNIError(ErrorCode.INVALID_CONFIG, f"ipam.type: plugin {name!r} is not in {call.path}")
    environment = {
        "PATH": os.defpath,
        "CNI_COMMAND": call.command,
        "CNI_CONTAINERID": call.container_id,
        "CNI_NETNS": call.netns,
        "CNI_IFNAME": call.ifname,
        "CNI_ARGS": call.args,
        "CNI_PATH": call.path,
    }
    done = subprocess.run(
        [str(Path(folder) / name)],
        input=json.dumps(call.conf).encode(),
        env=environment,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise _error_of(name, done.stdout, done.stderr)
    return Result.from_json(json.loads(done.stdout)) if call.command == "ADD" else None


def _error_of(name: str, stdout: bytes, stderr: bytes) -> CNIError:
    try:
        found = json.loads(stdout)
        return CNIError(ErrorCode(found["code"]), f"{name}: {found['msg']}", found.get("details", ""))
    except (ValueError, KeyError, TypeError):
        said = (stdout + stderr).decode(errors="replace").strip()
        return CNIError(ErrorCode.INTERNAL, f"{name} failed without an error object", said)
