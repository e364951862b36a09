"""The steps: what the specification demands of any plugin, of any chain, and what its text implies.

The endpoint is the path of an executable, or of a configuration list (`.conflist`), whose plugins are then tested one
by one for bad input and together as a chain. Options:

- `bin-dir`: CNI_PATH; by default the executable's folder, for a list /opt/cni/bin
- `conf`: a file with the configuration of a plugin that the kit does not know by name; `role`: main, meta or ipam
- `node`: run plugins in the existing network namespace of that name instead of a scratch one
- `limit`: seconds that one call may take, 20 by default
- `versions`: those to test, with commas between; by default all that the plugins speak
- `kills`: how many ADDs are killed in the middle, 8 by default
- `strict`: `true` also demands what the specification leaves to the runtime (ADD twice), and what reference plugins
  leave out (the family of an address before 1.0.0)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiphys_sdk.cni.delegate import find
from tiphys_sdk.cni.spec import SUPPORTED_VERSIONS, CNIError
from tiphys_sdk.conformance.bench import Bench, check_options, option_flag
from tiphys_sdk.conformance.cni.bad_input import bad_input, versions_of
from tiphys_sdk.conformance.cni.chain import Chain, Link
from tiphys_sdk.conformance.cni.lives import Lives
from tiphys_sdk.conformance.cni.profiles import Role, profiles
from tiphys_sdk.conformance.cni.results import LISTED
from tiphys_sdk.conformance.cni.scene import Scene, open_scene

OPTIONS = ("bin-dir", "conf", "role", "node", "limit", "versions", "kills", "strict")
_BIN_DIR = "/opt/cni/bin"


async def run(endpoint: str, bench: Bench, options: Mapping[str, str]) -> None:
    """Tests the plugin or list at endpoint. Raises ValueError where that can't be: no such file, no root."""
    check_options(options, OPTIONS)
    limit_s, kills = _number(options, "limit", 20.0), int(_number(options, "kills", 8))
    wanted = set(filter(None, options.get("versions", "").split(",")))
    async with open_scene(options.get("node", "")) as scene:
        links, path, asked = _links(Path(endpoint), scene, options)
        chain = Chain(links, path, scene, bench, limit_s=limit_s)
        supported = set(LISTED)
        for link in links:
            prefix = f"{link.type}: " if len(links) > 1 else ""
            supported &= await versions_of(chain, link, bench, prefix)
            await bad_input(chain, link, bench, prefix)
        supported &= (wanted or supported) & (asked or supported)
        versions = [version for version in SUPPORTED_VERSIONS if version in supported]
        lives = Lives(chain, scene, bench, strict=option_flag(options, "strict"), kills=kills)
        await lives.all_steps(versions)


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(options.get(name, default))
    except ValueError as err:
        raise ValueError(f"--option {name}: {options[name]!r} is no number") from err


def _links(endpoint: Path, scene: Scene, options: Mapping[str, str]) -> tuple[tuple[Link, ...], str, set[str]]:
    """The chain, CNI_PATH, and the versions to test, none for all."""
    if not endpoint.exists():
        raise ValueError(f"there is no {endpoint}")
    if endpoint.suffix not in (".conflist", ".conf", ".json"):
        path = options.get("bin-dir", str(endpoint.parent))
        return (_single(endpoint.name, scene, options),), path, set()
    found = _read(endpoint)
    plugins = found.get("plugins") if "plugins" in found else [found]
    if not isinstance(plugins, list) or not plugins or not all(isinstance(p, dict) and p.get("type") for p in plugins):
        raise ValueError(f"{endpoint} has no list of plugins")
    path = options.get("bin-dir", _BIN_DIR)
    for plugin in plugins:
        try:
            find(plugin["type"], path)
        except CNIError as err:
            raise ValueError(err.message) from err
    known = profiles(scene.data)
    guessed = [Role.MAIN, *[Role.META] * len(plugins)]
    roles = [known[p["type"]].role if p["type"] in known else role for p, role in zip(plugins, guessed, strict=False)]
    links = tuple(Link(p["type"], role, _own_data(p, scene)) for p, role in zip(plugins, roles, strict=True))
    return links, path, {str(found.get("cniVersion", "1.0.0"))}


def _own_data(plugin: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """The same with addresses kept in the kit's folder, so that a test takes none of the node's."""
    ipam = plugin.get("ipam") or {}
    if ipam.get("type") != "host-local":
        return plugin
    return plugin | {"ipam": ipam | {"dataDir": str(scene.data)}}


def _single(name: str, scene: Scene, options: Mapping[str, str]) -> Link:
    known = profiles(scene.data).get(name)
    if "conf" in options:
        conf = _own_data(_read(Path(options["conf"])), scene)
        default = known.role if known else Role.MAIN
        return Link(name, Role(options.get("role", default)), conf)
    if known is None:
        names = ", ".join(profiles(scene.data))
        raise ValueError(f"{name} needs --option conf=FILE: the kit knows {names}")
    return Link(name, known.role, known.conf)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as err:
        raise ValueError(f"{path}: {err}") from err
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no JSON object")
    return found
