"""Devices that a file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_device.generic import ConfigError, GenericPlugin, parse_config, scan
from tiphys_sdk.device.plugin import DeviceNode, Mount

CONFIG = """
resources:
  - name: example.com/serial
    devices:
      - glob: {folder}/tty*
      - id: pair
        nodes: [{{host_path: {folder}/a}}, {{host_path: {folder}/b, container_path: /dev/b, permissions: r}}]
    mounts: [{{host_path: /opt/lib, container_path: /usr/lib/serial}}]
    env: {{SERIAL: 1}}
    ids_env: DEVICES
"""


async def test_files_that_come_and_go_make_devices_and_their_health(tmp_path: Path) -> None:
    (tmp_path / "tty0").touch()
    plugin = GenericPlugin(parse_config(CONFIG.format(folder=tmp_path))[0])
    lists = plugin.devices()
    assert {d.id: d.healthy for d in await anext(lists)} == {"tty0": True, "pair": False}
    (tmp_path / "a").touch()
    await anext(lists)
    (tmp_path / "b").touch()
    assert {d.id: d.healthy for d in await anext(lists)} == {"tty0": True, "pair": True}
    (tmp_path / "tty0").unlink()
    assert {d.id: d.healthy for d in await anext(lists)} == {"tty0": False, "pair": True}
    grant = await plugin.allocate(["pair"])
    assert grant.env == {"SERIAL": "1", "DEVICES": "pair"}
    assert grant.nodes == [DeviceNode(f"{tmp_path}/a"), DeviceNode(f"{tmp_path}/b", "/dev/b", "r")]
    assert grant.mounts == (Mount("/opt/lib", "/usr/lib/serial"),)
    await lists.aclose()


def test_a_device_that_some_share_is_told_once_for_each(tmp_path: Path) -> None:
    (tmp_path / "tty0").touch()
    text = f"resources: [{{name: a.b/c, devices: [{{glob: {tmp_path}/tty*}}], count: 2}}]"
    plugin = GenericPlugin(parse_config(text)[0])
    plugin._found = scan(plugin._rule, {})
    assert [d.id for d in plugin._devices()] == ["tty0::0", "tty0::1"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("resources: [", "no YAML", id="no yaml"),
        pytest.param("[]", r"file\.resources", id="no map"),
        pytest.param("resources: []", r"file\.resources", id="nothing"),
        pytest.param("resources: [{devices: [{glob: /dev/x}]}]", r"resources\[0\]\.name", id="no name"),
        pytest.param("resources: [{name: a/b, devices: [{glob: x}]}]", r"devices\[0\]\.glob", id="relative path"),
        pytest.param("resources: [{name: a/b, devices: [{glob: /x, id: y}]}]", r"devices\[0\]", id="both"),
        pytest.param("resources: [{name: a/b, devices: [{id: y}]}]", r"devices\[0\]\.nodes", id="no nodes"),
        pytest.param("resources: [{name: a/b, devices: [{glob: /x}], counts: 2}]", "unknown: counts", id="typo"),
        pytest.param("resources: [{name: a/b, devices: [{glob: /x}], count: 0}]", r"count", id="count"),
        pytest.param(
            "resources: [{name: a/b, devices: [{glob: /x, permissions: q}]}]", "permissions", id="permissions"
        ),
        pytest.param(
            "resources: [{name: a/b, devices: [{glob: /x}]}, {name: a/b, devices: [{glob: /y}]}]", "twice", id="twice"
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(text: str, place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        parse_config(text)
