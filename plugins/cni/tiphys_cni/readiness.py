"""Whether the node's network could attach a container now: the verb STATUS for runtimes that don't know it.

containerd calls STATUS from 2.0.1 on, CRI-O from 1.30 on, each when the kubelet asks for the runtime's status. CHECK is
called by neither in the life of a pod, and so not by us: what an attachment lost would come back only with a new
sandbox, and killing a pod that may well work is worse than leaving it to its probes.
Source: github.com/containerd/go-cni pull request 123, github.com/cri-o/ocicni pull request 196,
github.com/containerd/containerd issue 7498.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiphys_cni import conflist
from tiphys_cni.registry import PLUGINS
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.delegate import delegate
from tiphys_sdk.cni.spec import NEWEST_VERSION, CNIError, ErrorCode

# The first version of a configuration that has the verb.
_SINCE = (1, 1, 0)


def trouble(conf_dir: Path, bin_dir: Path | None, waits_for: str) -> CNIError | None:
    """What the first plugin of the configured network that is not ready says. Blocks.

    waits_for says for what the configuration waits while there is none. A network whose addresses are all given away
    gives ADDRESSES_EXHAUSTED: the pods that run there are well.
    """
    try:
        network = conflist.read(conf_dir)
        if network is None:
            message = f"no network configuration list in {conf_dir}: {waits_for}"
            return CNIError(ErrorCode.PLUGIN_NOT_AVAILABLE, message)
        for plugin in network["plugins"]:
            _ask(network, plugin, bin_dir)
    except CNIError as err:
        return err
    except (OSError, ValueError, KeyError) as err:
        return CNIError(ErrorCode.INVALID_CONFIG, f"network configuration list in {conf_dir}: {err!r}")
    return None


def _ask(network: Mapping[str, Any], plugin: Mapping[str, Any], bin_dir: Path | None) -> None:
    kind = str(plugin["type"])
    is_foreign = bin_dir is not None and (bin_dir / kind).is_symlink()
    version = str(network.get("cniVersion", "")) if is_foreign or kind not in PLUGINS else NEWEST_VERSION
    conf = {**plugin, "cniVersion": version, "name": network["name"]}
    call = Call("STATUS", "", "", -1, "", "", str(bin_dir or ""), conf)
    try:
        if version == NEWEST_VERSION and not is_foreign:
            PLUGINS[kind].status(call)
        elif bin_dir is not None and _parts(version) >= _SINCE:
            delegate(call, kind)
    except CNIError as err:
        raise CNIError(err.code, err.message if kind in err.message else f"{kind}: {err.message}", err.details) from err


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
