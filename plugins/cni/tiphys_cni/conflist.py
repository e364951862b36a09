"""The network configuration list that the runtime reads: its values, and the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "10-tiphys.conflist"
NETWORK = "tiphys"
_PLACE = "{{podCIDR}}"
_BRIDGE = "cni0"
_PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}


class TemplateError(Exception):
    """A file is no network configuration list; the message names it."""


@dataclass(frozen=True, slots=True)
class Template:
    """A configuration list whose text may have a place for the node's range."""

    text: str

    @property
    def needs_range(self) -> bool:
        """Whether it can't be written before the node's range is known."""
        return _PLACE in self.text

    def filled(self, pod_cidr: str) -> dict[str, Any]:
        """The list for a node with this range. Raises TemplateError."""
        try:
            found = json.loads(self.text.replace(_PLACE, pod_cidr))
        except ValueError as err:
            raise TemplateError(f"not JSON: {err}") from err
        plugins = found.get("plugins") if isinstance(found, dict) else None
        if not isinstance(plugins, list) or not all(isinstance(one, dict) and one.get("type") for one in plugins):
            raise TemplateError('no list "plugins" in which each has its "type"')
        if not plugins or not found.get("name"):
            raise TemplateError('"name" or all "plugins" are missing')
        return dict(found)


def read_template(path: Path) -> Template:
    """The user's own configuration list. Raises TemplateError."""
    try:
        template = Template(path.read_text())
        template.filled("192.0.2.0/24")
    except (OSError, ValueError, TemplateError) as err:
        raise TemplateError(f"network configuration list {path}: {err}") from err
    return template


def bridge_network(pod_cidr: str, *, data_dir: Path | None = None, mtu: int = 0) -> dict[str, Any]:
    """A node by itself: the bridge with the node's range, which masquerades what leaves that. Pure."""
    plugin: dict[str, Any] = {
        "type": "bridge",
        "bridge": _BRIDGE,
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": pod_cidr}]], **_data_dir(data_dir)},
    }
    if mtu:
        plugin["mtu"] = mtu
    return _chain(plugin)


def flannel_network(subnet_file: Path, *, data_dir: Path | None = None, mtu: int = 0) -> dict[str, Any]:
    """A node among others: range, MTU and masquerading as the flannel service says in its file. Pure."""
    handed_on: dict[str, Any] = {"bridge": _BRIDGE, "isDefaultGateway": True, "hairpinMode": True}
    if mtu:
        handed_on["mtu"] = mtu
    plugin: dict[str, Any] = {"type": "flannel", "subnetFile": str(subnet_file), "delegate": handed_on}
    if data_dir is not None:
        # Beside the addresses, as in /var/lib/cni.
        plugin |= {"dataDir": str(data_dir.with_name("flannel")), "ipam": _data_dir(data_dir)}
    return _chain(plugin)


def _data_dir(folder: Path | None) -> dict[str, str]:
    return {} if folder is None else {"dataDir": str(folder)}


def _chain(plugin: Mapping[str, Any]) -> dict[str, Any]:
    # containerd 1.6 takes nothing above 1.0.0.
    return {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [plugin, _PORTMAP]}


def write(folder: Path, network: Mapping[str, Any]) -> Path:
    """Writes the configuration list at once; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / FILE_NAME
    fresh = folder / ".10-tiphys.new"
    fresh.write_text(json.dumps(network, indent=2) + "\n")
    fresh.replace(target)
    return target


def read(folder: Path) -> dict[str, Any] | None:
    """The configuration list that was written, None where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / FILE_NAME).read_bytes())
    except FileNotFoundError:
        return None
    return found


def remove(folder: Path) -> None:
    """Takes the configuration list away, so that the runtime says that the network is not ready."""
    (folder / FILE_NAME).unlink(missing_ok=True)
