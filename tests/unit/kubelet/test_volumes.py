"""Volumes without a container: content, atomic exchange, checks."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.kubelet.builders import make_pod
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.clock import FakeClock
from tiphys_kubelet.objects import ObjectKey
from tiphys_kubelet.volumes import empty_dir, object_volumes, subpath
from tiphys_kubelet.volumes.atomic_writer import FileContent, PathError, write_files
from tiphys_kubelet.volumes.host_path import check_type
from tiphys_kubelet.volumes.interface import VolumeError
from tiphys_kubelet.volumes.manager import VolumeManager, VolumeSurroundings, next_refresh
from tiphys_kubelet.volumes.projected import Token
from tiphys_kubelet.volumes.registry import default_plugins
from tiphys_kubelet.volumes.subpath import bind_subpath

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def put(target: Path, **files: str) -> bool:
    """Writes files of these contents; __ stands for a slash, and a dot for itself."""
    contents = {name.replace("__", "/"): FileContent(text.encode()) for name, text in files.items()}
    return write_files(target, contents, now=NOW)


def shown(target: Path) -> dict[str, str]:
    """What a user sees."""
    paths = (p for p in target.rglob("*") if not any(part.startswith("..") for part in p.relative_to(target).parts))
    found = {str(p.relative_to(target)): p for p in paths if p.is_file()}
    for entry in target.iterdir():
        if entry.is_symlink() and entry.is_dir() and not entry.name.startswith(".."):
            found |= {f"{entry.name}/{p.relative_to(entry)}": p for p in entry.rglob("*") if p.is_file()}
    return {name: path.read_text() for name, path in found.items()}


def test_files_are_seen_through_links(tmp_path: Path) -> None:
    assert put(tmp_path, a="1", dir__b="2")
    assert shown(tmp_path) == {"a": "1", "dir/b": "2"}
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "..data").startswith("..2026_01_01_")


def test_same_content_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path, a="1")
    before = os.readlink(tmp_path / "..data")
    assert not put(tmp_path, a="1")
    assert os.readlink(tmp_path / "..data") == before


def test_update_exchanges_all_files_and_leaves_no_rest(tmp_path: Path) -> None:
    put(tmp_path, a="1", b="1")
    assert put(tmp_path, a="2", c="2")
    assert shown(tmp_path) == {"a": "2", "c": "2"}
    assert len([p for p in tmp_path.iterdir() if p.name.startswith("..2026")]) == 1


def test_mode_is_as_asked_whatever_the_umask(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": FileContent(b"", 0o440)}, now=NOW)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o440


@pytest.mark.parametrize("path", ["", "/abs", "../up", "a/../../b", "..hidden"])
def test_path_that_leaves_the_volume_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(PathError):
        write_files(tmp_path, {path: FileContent(b"")}, now=NOW)


@pytest.mark.parametrize(
    ("kind", "exists", "problem"),
    [
        ("Directory", "dir", None),
        ("Directory", "", "is not a directory"),
        ("File", "dir", "is not a file"),
        ("DirectoryOrCreate", "", None),
        ("FileOrCreate", "", None),
        ("Socket", "file", "is not a socket file"),
        ("Strange", "", '"Strange" is an unknown type'),
    ],
)
def test_host_path_types(tmp_path: Path, kind: str, exists: str, problem: str | None) -> None:
    path = tmp_path / "it"
    if exists == "dir":
        path.mkdir()
    elif exists == "file":
        path.touch()
    if problem is None:
        check_type(path, kind)
        assert path.exists()
        return
    with pytest.raises(VolumeError, match=problem):
        check_type(path, kind)


@pytest.mark.parametrize("path", ["../other", "/etc", "link/x"])
def test_subpath_can_not_leave_its_volume(tmp_path: Path, path: str) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "link").symlink_to("/etc")
    with pytest.raises(VolumeError):
        bind_subpath(volume, path, tmp_path / "target")


def test_subpath_that_is_made_is_as_open_as_its_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subpath, "mount", lambda source, target, flags: None)
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)
    bind_subpath(volume, "deep/er", tmp_path / "target")
    assert [(volume / name).stat().st_mode & 0o7777 for name in ("deep", "deep/er")] == [0o2777, 0o2777]


def pod_with(kind: str) -> Pod:
    """A pod with one volume of a kind, named v."""
    pod = make_pod("app")
    source = pod.spec.volumes.add(name="v").volumeSource
    if kind == "configMap":
        source.configMap.localObjectReference.name = "conf"
        source.configMap.items.add(key="k", path="deep/file", mode=0o400)
    elif kind == "token":
        projection = source.projected.sources.add().serviceAccountToken
        projection.path, projection.expirationSeconds = "token", 1000
    return pod


async def no_token(pod: Pod, audience: str, lifetime_s: int) -> Token:
    """Nobody gives tokens."""
    raise VolumeError("no tokens here")


async def test_config_map_is_written_and_followed(tmp_path: Path) -> None:
    manager = VolumeManager(tmp_path, default_plugins(FakeClock(NOW), no_token))
    pod = pod_with("configMap")
    key = ObjectKey(ConfigMap, "default", "conf")
    mounted = await manager.ensure(pod, VolumeSurroundings({key: ConfigMap(data={"k": "one"})}))
    path = mounted["v"].host_path
    assert path == tmp_path / "uid-1" / "volumes" / "kubernetes.io~configmap" / "v"
    assert (path / "deep" / "file").read_text() == "one"
    await manager.ensure(pod, VolumeSurroundings({key: ConfigMap(data={"k": "two"})}))
    assert (path / "deep" / "file").read_text() == "two"
    await manager.tear_down("uid-1")
    await manager.tear_down("uid-1")
    assert manager.uids() == set()


async def test_missing_config_map_is_told_with_the_volume(tmp_path: Path) -> None:
    manager = VolumeManager(tmp_path, default_plugins(FakeClock(NOW), no_token))
    expected = 'MountVolume.SetUp failed for volume "v" : configmap "conf" not found'
    with pytest.raises(VolumeError, match=expected):
        await manager.ensure(pod_with("configMap"), VolumeSurroundings({}))


@pytest.mark.parametrize(("medium", "mode"), [("", 0o777), ("Memory", 0o1777)])
async def test_empty_dir_is_open_to_all_and_in_memory_sticky_as_a_tmpfs_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medium: str, mode: int
) -> None:
    monkeypatch.setattr(empty_dir, "ensure_tmpfs", lambda path, size: path.mkdir(parents=True, exist_ok=True))
    pod = make_pod("app")
    pod.spec.volumes.add(name="v").volumeSource.emptyDir.medium = medium
    mounted = await VolumeManager(tmp_path, default_plugins(FakeClock(NOW), no_token)).ensure(
        pod, VolumeSurroundings({})
    )
    assert mounted["v"].host_path.stat().st_mode & 0o7777 == mode


async def test_unknown_kind_of_volume_is_told(tmp_path: Path) -> None:
    pod = make_pod("app")
    pod.spec.volumes.add(name="v").volumeSource.nfs.server = "x"
    manager = VolumeManager(tmp_path, default_plugins(FakeClock(NOW), no_token))
    with pytest.raises(VolumeError, match="nfs is not supported"):
        await manager.ensure(pod, VolumeSurroundings({}))


async def test_E8_token_is_asked_for_again_at_four_fifths_of_its_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_volumes, "ensure_tmpfs", lambda path: path.mkdir(parents=True, exist_ok=True))
    clock, asked = FakeClock(NOW), []

    async def give(pod: Pod, audience: str, lifetime_s: int) -> Token:
        asked.append(lifetime_s)
        return Token(f"token-{len(asked)}", clock.now(), clock.now() + timedelta(seconds=lifetime_s))

    manager = VolumeManager(tmp_path, default_plugins(clock, give))
    pod = pod_with("token")
    mounted = await manager.ensure(pod, VolumeSurroundings({}))
    assert next_refresh(mounted) == NOW + timedelta(seconds=800)
    clock.advance(799)
    await manager.ensure(pod, VolumeSurroundings({}))
    assert asked == [1000]
    clock.advance(1)
    mounted = await manager.ensure(pod, VolumeSurroundings({}))
    assert asked == [1000, 1000]
    assert (mounted["v"].host_path / "token").read_text() == "token-2"
