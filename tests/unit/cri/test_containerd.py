"""Image archives, names, endpoints, errors and events, without a runtime."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from tests.support.containerd import write_image
from tiphys.thirdparty.containerd import task_events_pb2, types_pb2
from tiphys_cri.containerd import ImageFileError, normalized_name, read_image_file
from tiphys_cri.endpoint import socket_target
from tiphys_cri.errors import CRIError
from tiphys_cri.events import runtime_event
from tiphys_cri.interface import RuntimeEvent, RuntimeEventType
from tiphys_cri.streaming import exit_code


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.35", "docker.io/library/busybox:1.35"),
        ("me/app", "docker.io/me/app:latest"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("ghcr.io/a/b@sha256:00", "ghcr.io/a/b@sha256:00"),
    ],
)
def test_short_names_are_completed(name: str, full: str) -> None:
    assert normalized_name(name) == full


def test_oci_archive_gives_children_before_parents_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    write_image(path, "me/app:1", {"bin/app": b"x"}, (), ["/bin/app"])
    found = read_image_file(path)
    assert [name for name, _ in found.images] == ["docker.io/me/app:1"]
    manifest = found.blobs[-1]
    assert manifest.digest == found.images[0][1].digest
    assert set(manifest.labels.values()) == {blob.digest for blob in found.blobs[:-1]}


def test_docker_archive_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["app:2"], "Layers": ["l/layer.tar"]}])
    with tarfile.open(path, "w") as tar:
        for member, text in (("c.json", config), ("l/layer.tar", "layer"), ("manifest.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    found = read_image_file(path)
    assert [name for name, _ in found.images] == ["docker.io/library/app:2"]
    assert len(found.blobs) == 3


@pytest.mark.parametrize("content", [b"", b"no archive at all", None], ids=["empty", "garbage", "other-tar"])
def test_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.tar"
    if content is None:
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo("readme"))
    else:
        path.write_bytes(content)
    with pytest.raises(ImageFileError, match="image archive"):
        read_image_file(path)


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [("/run/x.sock", "unix:/run/x.sock"), ("unix:///run/x.sock", "unix:/run/x.sock"), ("tcp://h:1", "h:1")],
)
def test_endpoints(endpoint: str, target: str) -> None:
    assert socket_target(endpoint) == target


@pytest.mark.parametrize("endpoint", ["", "npipe://x", "unix://"])
def test_wrong_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="neither a path"):
        socket_target(endpoint)


def test_error_reads_as_in_kubernetes() -> None:
    error = CRIError("no such image", code=grpc.StatusCode.NOT_FOUND)
    assert error.wire_text == "rpc error: code = NotFound desc = no such image"


def envelope(topic: str, event: Message) -> types_pb2.Envelope:
    """An event of containerd."""
    made = types_pb2.Envelope(topic=topic)
    made.event.value = event.SerializeToString()
    return made


@pytest.mark.parametrize(
    ("topic", "event", "expected"),
    [
        ("/tasks/start", task_events_pb2.TaskStart(container_id="c"), RuntimeEvent("c", RuntimeEventType.STARTED)),
        (
            "/tasks/exit",
            task_events_pb2.TaskExit(container_id="c", id="c"),
            RuntimeEvent("c", RuntimeEventType.STOPPED),
        ),
        ("/tasks/exit", task_events_pb2.TaskExit(container_id="c", id="exec-1"), None),
        ("/tasks/delete", task_events_pb2.TaskDelete(container_id="c"), RuntimeEvent("c", RuntimeEventType.STOPPED)),
        ("/tasks/oom", task_events_pb2.TaskOOM(container_id="c"), RuntimeEvent("c", RuntimeEventType.OOM)),
        ("/images/create", task_events_pb2.TaskOOM(container_id="c"), None),
    ],
    ids=["start", "exit", "exec-exit", "delete", "oom", "other"],
)
def test_events_of_containerd(topic: str, event: Message, expected: RuntimeEvent | None) -> None:
    assert runtime_event(envelope(topic, event)) == expected


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (b"", 0),
        (b'{"status":"Success"}', 0),
        (b'{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}', 7),
        (b'{"status":"Failure"}', 1),
        (b"garbage", 1),
    ],
)
def test_exit_code_of_a_status(status: bytes, code: int) -> None:
    assert exit_code(status) == code
