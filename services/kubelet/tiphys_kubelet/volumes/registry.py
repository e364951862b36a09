"""The kinds of volumes there are, in the order in which they are asked. A new kind is one line here."""

from __future__ import annotations

from tiphys_component.clock import Clock
from tiphys_kubelet.volumes.empty_dir import EmptyDirPlugin
from tiphys_kubelet.volumes.host_path import HostPathPlugin
from tiphys_kubelet.volumes.interface import VolumePlugin
from tiphys_kubelet.volumes.object_volumes import ConfigMapPlugin, DownwardAPIPlugin, SecretPlugin
from tiphys_kubelet.volumes.projected import ProjectedPlugin, RequestToken


def default_plugins(clock: Clock, request_token: RequestToken, *further: VolumePlugin) -> tuple[VolumePlugin, ...]:
    """All kinds; `further` are those that need more of the kubelet than these."""
    return (
        ProjectedPlugin(clock, request_token),
        ConfigMapPlugin(clock),
        SecretPlugin(clock),
        EmptyDirPlugin(),
        HostPathPlugin(),
        DownwardAPIPlugin(clock),
        *further,
    )
