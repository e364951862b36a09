"""From plugins' answers to a container's configuration."""

from __future__ import annotations

from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2
from tiphys_kubelet.resources.grants import make_grant


def test_answers_are_put_together_and_the_first_stands_where_two_name_the_same() -> None:
    first = api_pb2.ContainerAllocateResponse(envs={"A": "1"}, annotations={"n": "1"})
    first.devices.add(host_path="/dev/null", container_path="/dev/x", permissions="rw")
    first.mounts.add(host_path="/lib", container_path="/lib", read_only=True)
    first.cdi_devices.add(name="vendor.example/gpu=0")
    second = api_pb2.ContainerAllocateResponse(envs={"A": "2", "B": "2"}, annotations={"n": "2", "m": "2"})
    second.devices.add(host_path="/dev/zero", container_path="/dev/x", permissions="r")
    second.mounts.add(host_path="/other", container_path="/lib")
    second.cdi_devices.add(name="vendor.example/gpu=0")
    grant = make_grant([first.SerializeToString(), second.SerializeToString()])
    assert grant.env == {"A": "1", "B": "2"}
    assert grant.annotations == {"n": "1", "m": "2"}
    assert [(d.host_path, d.permissions) for d in grant.devices] == [("/dev/null", "rw")]
    assert [(m.host_path, m.readonly) for m in grant.mounts] == [("/lib", True)]
    assert [c.name for c in grant.cdi_devices] == ["vendor.example/gpu=0"]
