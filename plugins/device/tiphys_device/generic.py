"""Devices that a configuration file names, by their files on the node; healthy while the files are there.

resources:
  - name: example.com/serial
    devices:
      - glob: /dev/ttyUSB*            # each file is a device, its id the file's name
      - id: pair                      # one device of several files
        nodes: [{host_path: /dev/a}, {host_path: /dev/b, container_path: /dev/other, permissions: r}]
    mounts: [{host_path: /opt/lib, container_path: /usr/lib/serial, read_only: true}]
    env: {SERIAL: "yes"}
    ids_env: SERIAL_DEVICES           # variable with the ids, comma between
    count: 1                          # how many containers may share one device
"""

from __future__ import annotations

import glob
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tiphys_component.app import StartupError
from tiphys_component.inotify import FolderWatch
from tiphys_component.proc import to_thread
from tiphys_sdk.device.plugin import Device, DeviceNode, DevicePlugin, Grant, Mount


class ConfigError(Exception):
    """The configuration can't be used; the message names the place."""


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """One entry of a resource's devices: a glob, or an id with its files."""

    glob: str = ""
    id: str = ""
    nodes: tuple[DeviceNode, ...] = ()
    permissions: str = "rw"

    def folders(self) -> set[Path]:
        """Where files of this rule come and go."""
        patterns = [self.glob] if self.glob else [node.host_path for node in self.nodes]
        return {_fixed_folder(pattern) for pattern in patterns}


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """One resource of the file."""

    name: str
    devices: tuple[DeviceRule, ...]
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ids_env: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """A device with its files; not healthy when one of them is missing."""

    id: str
    nodes: tuple[DeviceNode, ...]
    healthy: bool


def parse_config(text: str) -> tuple[ResourceRule, ...]:
    """The resources of the file. Raises ConfigError."""
    try:
        told = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ConfigError(f"no YAML: {err}") from err
    resources = _member(told, "resources", list, "file")
    rules = tuple(_resource(entry, f"resources[{index}]") for index, entry in enumerate(resources))
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not rules:
        raise ConfigError(f"resources named twice: {', '.join(twice)}" if twice else "resources: there is none")
    return rules


def _resource(entry: Any, where: str) -> ResourceRule:
    _known(entry, {"name", "devices", "mounts", "env", "ids_env", "count"}, where)
    devices = _member(entry, "devices", list, where)
    count = entry.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"{where}.count: must be a whole number of at least 1, is {count!r}")
    return ResourceRule(
        name=_member(entry, "name", str, where),
        devices=tuple(_device(device, f"{where}.devices[{index}]") for index, device in enumerate(devices)),
        mounts=tuple(_mount(mount, f"{where}.mounts[{i}]") for i, mount in enumerate(entry.get("mounts") or ())),
        env={str(key): str(value) for key, value in (entry.get("env") or {}).items()},
        ids_env=str(entry.get("ids_env", "")),
        count=count,
    )


def _device(entry: Any, where: str) -> DeviceRule:
    _known(entry, {"glob", "id", "nodes", "permissions"}, where)
    permissions = _permissions(entry, where)
    if "glob" in entry and not entry.keys() & {"id", "nodes"}:
        return DeviceRule(glob=_path(entry, "glob", where), permissions=permissions)
    nodes = tuple(_node(node, f"{where}.nodes[{i}]") for i, node in enumerate(_member(entry, "nodes", list, where)))
    if "glob" in entry or not nodes:
        raise ConfigError(f"{where}: needs either a glob, or an id with nodes")
    return DeviceRule(id=_member(entry, "id", str, where), nodes=nodes)


def _node(entry: Any, where: str) -> DeviceNode:
    _known(entry, {"host_path", "container_path", "permissions"}, where)
    return DeviceNode(
        _path(entry, "host_path", where), str(entry.get("container_path", "")), _permissions(entry, where)
    )


def _mount(entry: Any, where: str) -> Mount:
    _known(entry, {"host_path", "container_path", "read_only"}, where)
    return Mount(
        _path(entry, "host_path", where), str(entry.get("container_path", "")), bool(entry.get("read_only", True))
    )


def _permissions(entry: Mapping[str, Any], where: str) -> str:
    permissions = str(entry.get("permissions", "rw"))
    if not permissions or set(permissions) - set("rwm"):
        raise ConfigError(f"{where}.permissions: must be of r, w and m, is {permissions!r}")
    return permissions


def _path(entry: Any, name: str, where: str) -> str:
    path = str(_member(entry, name, str, where))
    if not path.startswith("/"):
        raise ConfigError(f"{where}.{name}: must be a whole path, is {path!r}")
    return path


def _member(entry: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(name), kind) or not entry[name]:
        raise ConfigError(f"{where}.{name}: is missing, or no {kind.__name__}")
    return entry[name]


def _known(entry: Any, names: set[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: must be a map, is {entry!r}")
    unknown = sorted(str(name) for name in entry.keys() - names)
    if unknown:
        raise ConfigError(f"{where}: unknown: {', '.join(unknown)}; known are {', '.join(sorted(names))}")


def _fixed_folder(pattern: str) -> Path:
    """The deepest folder above the pattern that has no wildcard in it."""
    folder = Path(pattern).parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return folder


def scan(rule: ResourceRule, seen: Mapping[str, Found]) -> dict[str, Found]:
    """The devices there are now; one that was seen and is gone stays, unhealthy. Blocks."""
    found: dict[str, Found] = {}
    for device in rule.devices:
        if device.glob:
            for path in sorted(glob.glob(device.glob)):
                node = DeviceNode(path, permissions=device.permissions)
                found.setdefault(Path(path).name, Found(Path(path).name, (node,), True))
        else:
            there = all(os.path.exists(node.host_path) for node in device.nodes)
            found.setdefault(device.id, Found(device.id, device.nodes, there))
    lost = {name: Found(old.id, old.nodes, False) for name, old in seen.items() if name not in found}
    return found | lost


class GenericPlugin(DevicePlugin):
    """One resource of the configuration file."""

    def __init__(self, rule: ResourceRule) -> None:
        self.resource = rule.name
        self._rule = rule
        self._found: dict[str, Found] = {}

    async def devices(self) -> AsyncGenerator[Sequence[Device]]:
        """What is there, and again when files come or go."""
        while True:
            folders = await to_thread(self._watchable)
            try:
                with FolderWatch(*folders) as watch:
                    while True:
                        self._found = await to_thread(scan, self._rule, self._found)
                        yield self._devices()
                        await watch.wait()
                        if await to_thread(self._watchable) != folders:
                            break
            except FileNotFoundError:
                # A folder went away: the next round watches the one above it.
                continue

    def _watchable(self) -> list[Path]:
        folders: set[Path] = set()
        for device in self._rule.devices:
            folders |= {_existing(folder) for folder in device.folders()}
        return sorted(folders)

    def _devices(self) -> list[Device]:
        count = self._rule.count
        return [
            Device(_shared_id(one.id, share, count), one.healthy)
            for one in self._found.values()
            for share in range(count)
        ]

    async def allocate(self, ids: Sequence[str]) -> Grant:
        """The files of the devices, and what the resource brings in any case."""
        names = list(dict.fromkeys(self._name(one) for one in ids))
        env = dict(self._rule.env)
        if self._rule.ids_env:
            env[self._rule.ids_env] = ",".join(names)
        nodes = [node for name in names for node in self._found[name].nodes]
        return Grant(env=env, nodes=nodes, mounts=self._rule.mounts)

    def _name(self, shared: str) -> str:
        return shared if self._rule.count == 1 else shared.rpartition("::")[0]


def _shared_id(name: str, share: int, count: int) -> str:
    return name if count == 1 else f"{name}::{share}"


def _existing(folder: Path) -> Path:
    return folder if folder.is_dir() else _existing(folder.parent)


def read_config(path: Path) -> list[DevicePlugin]:
    """A plugin for each resource of the file. Raises StartupError. Blocks."""
    try:
        rules = parse_config(path.read_text())
    except OSError as err:
        raise StartupError(f"{path}: {err.strerror}", "name the file of the devices with --config") from err
    except ConfigError as err:
        raise StartupError(f"{path}: {err}", "correct the file") from err
    return [GenericPlugin(rule) for rule in rules]
