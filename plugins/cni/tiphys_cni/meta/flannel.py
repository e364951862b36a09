"""flannel: the node's subnet from subnet.env, and another plugin, by default bridge, that does the work.

bridge is called in process, so that nothing is executed for it. What was handed on is kept until DEL, as the subnet
may have changed, or the file be gone, by then.

Source: flannel-io/cni-plugin README.md (configuration, defaults, what is kept).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiphys_cni.flannel.subnet import DEFAULT_PATH, SubnetEnv, SubnetFileError, read
from tiphys_cni.main import bridge
from tiphys_sdk.cni.conf import Attachment, Call
from tiphys_sdk.cni.delegate import delegate
from tiphys_sdk.cni.skel import Plugin
from tiphys_sdk.cni.spec import CNIError, ErrorCode, Result

DEFAULT_DATA_DIR = "/var/lib/cni/flannel"
# Delegates that need no process of their own.
_IN_PROCESS: Mapping[str, Plugin] = {bridge.PLUGIN.name: bridge.PLUGIN}
# No interface's name has a colon, so the two parts of a file's name can be told apart.
_SEPARATOR = ":"


def add(call: Call) -> Result:
    """Attaches the container by the delegate, with the node's subnet. TRY_AGAIN while there is none."""
    conf = delegate_conf(call.conf, _subnet(call, ErrorCode.TRY_AGAIN))
    path = _path(call, Attachment(call.container_id, call.ifname))
    is_new = not path.exists()
    if is_new:
        _save(path, conf)
    try:
        result = _hand_on(call, conf, "ADD")
    except BaseException:
        if is_new:
            path.unlink(missing_ok=True)
        raise
    assert result is not None
    return result


def delete(call: Call) -> None:
    """Detaches the container as it was attached; what is gone already is well."""
    attachment = Attachment(call.container_id, call.ifname)
    path = _saved(call, attachment)
    conf = _load(path) if path is not None else None
    if conf is None:
        # Attached by a life that kept nothing, or not at all: what there is is found by the container's id.
        conf = delegate_conf(call.conf, _subnet_or_none(call))
        # Of another plugin nothing is known but that it was never asked, or that it may not be there any more.
        if conf["type"] not in _IN_PROCESS:
            return
    _hand_on(call, conf, "DEL")
    if path is not None:
        path.unlink(missing_ok=True)


def check(call: Call) -> None:
    """Fails where the attachment is not as it was made."""
    path = _saved(call, Attachment(call.container_id, call.ifname))
    conf = _load(path) if path is not None else None
    if conf is None:
        message = f"flannel: nothing is kept of container {call.container_id} interface {call.ifname}"
        raise CNIError(ErrorCode.CHECK_FAILED, message)
    _hand_on(call, conf, "CHECK")


def status(call: Call) -> None:
    """Fails while the node has no subnet, and where the delegate is not ready."""
    _hand_on(call, delegate_conf(call.conf, _subnet(call, ErrorCode.PLUGIN_NOT_AVAILABLE)), "STATUS")


def collect(call: Call) -> None:
    """Detaches what is kept of this network and not among the valid attachments; then the delegate does the same."""
    valid = call.valid_attachments
    for attachment, path in _all_saved(call):
        conf = _load(path)
        if attachment in valid or (conf is not None and conf.get("name") != call.network):
            continue
        if conf is not None:
            gone = replace(call, container_id=attachment.container_id, ifname=attachment.ifname, netns="", netns_fd=-1)
            _hand_on(gone, conf, "DEL")
        path.unlink(missing_ok=True)
    _hand_on(call, delegate_conf(call.conf, _subnet_or_none(call)), "GC")


def delegate_conf(conf: Mapping[str, Any], env: SubnetEnv | None) -> dict[str, Any]:
    """The delegate's configuration: what ours says of it, and the subnet where it is known. Pure. Raises CNIError."""
    given = _mapping(conf, "delegate")
    for key in ("name", "ipam"):
        if key in given:
            raise CNIError(
                ErrorCode.INVALID_CONFIG, f"delegate.{key}: {given[key]!r} may not be given, flannel sets it"
            )
    made = {"type": bridge.PLUGIN.name, **given, "name": conf.get("name", ""), "cniVersion": conf.get("cniVersion", "")}
    if not isinstance(made["type"], str):
        raise CNIError(ErrorCode.INVALID_CONFIG, f"delegate.type: {made['type']!r} is no name of a plugin")
    if made["type"] == bridge.PLUGIN.name:
        made.setdefault("isGateway", True)
    for key in ("prevResult", "runtimeConfig", "cni.dev/valid-attachments"):
        if key in conf:
            made[key] = conf[key]
    ipam = {"type": "host-local", **_mapping(conf, "ipam")}
    if env is not None:
        # One of the two masquerades: the bridge's would hide pods from pods of other nodes.
        made.setdefault("ipMasq", not env.ip_masq)
        made.setdefault("mtu", env.mtu)
        ipam["ranges"] = [*ipam.get("ranges", []), [{"subnet": str(env.subnet.network)}]]
        ipam["routes"] = [*ipam.get("routes", []), {"dst": str(env.network)}]
    return {**made, "ipam": ipam}


def _mapping(conf: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = conf.get(key) or {}
    if not isinstance(found, dict):
        raise CNIError(ErrorCode.INVALID_CONFIG, f"{key}: {found!r} is no object")
    return found


def _hand_on(call: Call, conf: Mapping[str, Any], verb: str) -> Result | None:
    given = {key: call.conf[key] for key in ("prevResult", "runtimeConfig") if key in call.conf}
    handed = replace(call, command=verb, conf={**conf, **given})
    plugin = _IN_PROCESS.get(conf["type"])
    if plugin is None:
        return delegate(handed, conf["type"], verb=verb)
    if verb == "ADD":
        return plugin.add(handed)
    verbs = {"DEL": plugin.delete, "CHECK": plugin.check, "GC": plugin.collect, "STATUS": plugin.status}
    verbs[verb](handed)
    return None


def _subnet_file(call: Call) -> Path:
    return Path(str(call.conf.get("subnetFile") or DEFAULT_PATH))


def _subnet(call: Call, code: ErrorCode) -> SubnetEnv:
    path = _subnet_file(call)
    try:
        return read(path)
    except FileNotFoundError as err:
        raise CNIError(code, f"flannel: {path} is missing: the flannel service holds no subnet for this node") from err
    except SubnetFileError as err:
        raise CNIError(code, f"flannel: {path}: {err}") from err


def _subnet_or_none(call: Call) -> SubnetEnv | None:
    try:
        return read(_subnet_file(call))
    except (FileNotFoundError, SubnetFileError):
        return None


def _folder(call: Call) -> Path:
    return Path(str(call.conf.get("dataDir") or DEFAULT_DATA_DIR))


def _path(call: Call, attachment: Attachment) -> Path:
    return _folder(call) / f"{attachment.container_id}{_SEPARATOR}{attachment.ifname}"


def _saved(call: Call, attachment: Attachment) -> Path | None:
    """What is kept of an attachment; the reference plugin keeps it under the container's id alone."""
    for path in (_path(call, attachment), _folder(call) / attachment.container_id):
        if path.exists():
            return path
    return None


def _all_saved(call: Call) -> Iterator[tuple[Attachment, Path]]:
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(_folder(call).iterdir()):
            container, separator, ifname = path.name.partition(_SEPARATOR)
            if separator:
                yield Attachment(container, ifname), path


def _save(path: Path, conf: Mapping[str, Any]) -> None:
    """Keeps a configuration: after a kill it is there whole or not at all.

    Not synced to the disk, which would cost an ADD milliseconds: after a power cut no container is left to detach, and
    what can't be read then counts as not kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    kept = {key: value for key, value in conf.items() if key not in ("prevResult", "runtimeConfig")}
    fresh.write_text(json.dumps(kept))
    fresh.replace(path)


def _load(path: Path) -> dict[str, Any] | None:
    """What is kept; None where it can't be read."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("type"), str) else None


PLUGIN = Plugin("flannel", add, delete, check, status, collect)
