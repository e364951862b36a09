"""Persistent volumes: their source stays."""

from __future__ import annotations

import pytest

from tests.unit.apiserver.fake_objects import read
from tests.unit.apiserver.registry.bench import context, strategy_of
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume


def volume(handle: str, fs_type: str | None = None) -> PersistentVolume:
    found = read(
        PersistentVolume,
        "{metadata: {name: v, uid: u, resourceVersion: '1'}, spec: {capacity: {storage: 1Gi},"
        f" accessModes: [ReadWriteOnce], csi: {{driver: d, volumeHandle: {handle}}}}}}}",
    )
    if fs_type is not None:
        found.spec.persistentVolumeSource.csi.fsType = fs_type
    return found


@pytest.mark.parametrize(
    ("before", "after", "is_refused"),
    [
        pytest.param(volume("h"), volume("h"), False, id="nothing changed"),
        pytest.param(volume("h", ""), volume("h"), False, id="an empty text that is written as none"),
        pytest.param(volume("h"), volume("h", ""), False, id="none that is written as an empty text"),
        pytest.param(volume("h"), volume("other"), True, id="another handle"),
        pytest.param(volume("h"), volume("h", "xfs"), True, id="another file system"),
    ],
)
def test_the_source_stays_as_it_is_read(before: PersistentVolume, after: PersistentVolume, is_refused: bool) -> None:
    errors = strategy_of(PersistentVolume).validate_update(context(), after, before)
    expected = ["spec.persistentvolumesource is immutable after creation"] if is_refused else []
    assert [error.detail for error in errors] == expected
