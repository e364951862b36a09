"""GPUs that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_device.nearness import nearest
from tiphys_device.simulated import SimulatedPlugin, Simulation, devices_of, parse_faults, parse_simulation
from tiphys_sdk.device.plugin import Device


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("gpu:8", Simulation("nvidia.com/gpu", 8, "H100")),
        ("gpu:2xA100", Simulation("nvidia.com/gpu", 2, "A100")),
        ("example.com/fpga:1", Simulation("example.com/fpga", 1, "H100")),
    ],
)
def test_simulations_are_read(text: str, wanted: Simulation) -> None:
    assert parse_simulation(text) == wanted


@pytest.mark.parametrize("text", ["gpu", "gpu:", "gpu:0", "gpu:-1", "gpu:1.5", "gpu:9999", "tpu:8", "gpu:8x"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no simulation"):
        parse_simulation(text)


def test_faults_name_devices_by_number_or_id() -> None:
    faults = parse_faults("1\nGPU-fake-2: xid 79\n\n")
    assert [d.healthy for d in devices_of(Simulation("nvidia.com/gpu", 4, "H100"), faults)] == [
        True,
        False,
        False,
        True,
    ]


async def test_a_fault_in_the_file_makes_a_device_unhealthy_until_it_is_gone(tmp_path: Path) -> None:
    lists = SimulatedPlugin(parse_simulation("gpu:2"), tmp_path).devices()
    assert [d.healthy for d in await anext(lists)] == [True, True]
    (tmp_path / "faults").write_text("0\n")
    seen = [d.healthy for d in await anext(lists)]
    while seen == [True, True]:
        seen = [d.healthy for d in await anext(lists)]
    assert seen == [False, True]
    (tmp_path / "faults").unlink()
    while seen != [True, True]:
        seen = [d.healthy for d in await anext(lists)]
    await lists.aclose()


async def test_a_gpu_comes_with_files_driver_and_environment(tmp_path: Path) -> None:
    grant = await SimulatedPlugin(parse_simulation("gpu:8"), tmp_path).allocate(["GPU-fake-3"])
    assert [(n.host_path, n.container_path) for n in grant.nodes] == [
        ("/dev/null", "/dev/nvidia3"),
        ("/dev/null", "/dev/nvidiactl"),
        ("/dev/null", "/dev/nvidia-uvm"),
    ]
    assert grant.env["NVIDIA_VISIBLE_DEVICES"] == "GPU-fake-3"
    assert grant.mounts[0].container_path == "/usr/local/nvidia"


@pytest.mark.parametrize(
    ("available", "must", "size", "wanted"),
    [
        pytest.param("01234567", "", 2, "01", id="one node"),
        pytest.param("0567", "", 2, "56", id="the node that has enough"),
        pytest.param("014567", "", 2, "01", id="the fullest node that has enough"),
        pytest.param("01234567", "5", 2, "54", id="beside what is held"),
        pytest.param("04567", "", 5, "45670", id="more than a node has"),
        pytest.param("012", "", 0, "", id="nothing"),
    ],
)
def test_near_devices_are_preferred(available: str, must: str, size: int, wanted: str) -> None:
    devices = {str(i): Device(str(i), numa_nodes=(i // 4,)) for i in range(8)}
    assert nearest(devices, tuple(available), tuple(must), size) == tuple(wanted)
