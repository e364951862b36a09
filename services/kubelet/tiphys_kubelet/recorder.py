"""The kubelet's events, written by the client's recorder."""

from __future__ import annotations

from typing import cast

from google.protobuf.message import Message

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_client.recorder import EventKind, EventRecorder


class PodEvents:
    """An EventSink that names the container concerned as part of its pod."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder

    def event(self, regarding: Message, kind: str, reason: str, message: str, *, container: str = "") -> None:
        """Tells of something."""
        path = field_path(regarding, container) if isinstance(regarding, Pod) and container else ""
        self._recorder.event(regarding, cast(EventKind, kind), reason, message, field_path=path)


def field_path(pod: Pod, container: str) -> str:
    """Where a container stands in its pod's spec, as Events name it."""
    lists = (
        ("initContainers", [c.name for c in pod.spec.initContainers]),
        ("ephemeralContainers", [c.ephemeralContainerCommon.name for c in pod.spec.ephemeralContainers]),
    )
    section = next((name for name, names in lists if container in names), "containers")
    return f"spec.{section}{{{container}}}"
