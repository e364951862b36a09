"""From what plugins answered to what a container is made with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """What the devices of a container bring into it; its own environment goes before theirs."""

    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[cri.Mount] = ()
    devices: Sequence[cri.Device] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi_devices: Sequence[cri.CDIDevice] = ()


def make_grant(answers: Iterable[bytes]) -> DeviceGrant:
    """All answers, each a ContainerAllocateResponse, in one; of what two name the first stands, as in Kubernetes."""
    env: dict[str, str] = {}
    annotations: dict[str, str] = {}
    mounts: dict[str, cri.Mount] = {}
    devices: dict[str, cri.Device] = {}
    cdi: dict[str, cri.CDIDevice] = {}
    for raw in answers:
        answer = api_pb2.ContainerAllocateResponse.FromString(raw)
        env = dict(answer.envs) | env
        annotations = dict(answer.annotations) | annotations
        for mount in answer.mounts:
            made = cri.Mount(container_path=mount.container_path, host_path=mount.host_path, readonly=mount.read_only)
            mounts.setdefault(mount.container_path, made)
        for device in answer.devices:
            node = cri.Device(
                container_path=device.container_path, host_path=device.host_path, permissions=device.permissions
            )
            devices.setdefault(device.container_path, node)
        for named in answer.cdi_devices:
            cdi.setdefault(named.name, cri.CDIDevice(name=named.name))
    return DeviceGrant(env, tuple(mounts.values()), tuple(devices.values()), annotations, tuple(cdi.values()))
