"""What a delete does to metadata."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tiphys.api.core.v1 import config_map_pb2, pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import Conflict, Invalid
from tiphys_apimachinery.meta import to_datetime
from tiphys_apiserver.registry import deletion

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_grace_sets_the_time_at_which_the_object_should_be_gone() -> None:
    pod: Any = pod_pb2.Pod()
    pod.metadata.generation = 3
    deletion.mark_deleted(pod.metadata, 30, NOW)
    assert to_datetime(pod.metadata.deletionTimestamp) == NOW + timedelta(seconds=30)
    assert (pod.metadata.deletionGracePeriodSeconds, pod.metadata.generation) == (30, 4)


def test_second_delete_only_brings_the_end_nearer() -> None:
    metadata = meta_pb2.ObjectMeta()
    deletion.mark_deleted(metadata, 30, NOW)
    deletion.mark_deleted(metadata, 60, NOW + timedelta(seconds=5))
    assert to_datetime(metadata.deletionTimestamp) == NOW + timedelta(seconds=30)
    deletion.mark_deleted(metadata, 10, NOW + timedelta(seconds=5))
    assert to_datetime(metadata.deletionTimestamp) == NOW + timedelta(seconds=10)


PROPAGATIONS = [
    pytest.param("Orphan", ["x", "orphan"], id="orphan"),
    pytest.param("Foreground", ["x", "foregroundDeletion"], id="foreground"),
    pytest.param("Background", ["x"], id="background drops both"),
    pytest.param(None, ["orphan", "x"], id="none keeps"),
]


@pytest.mark.parametrize(("policy", "finalizers"), PROPAGATIONS)
def test_propagation(policy: str | None, finalizers: list[str]) -> None:
    metadata = meta_pb2.ObjectMeta(finalizers=["orphan", "x"])
    deletion.apply_propagation(metadata, policy)
    assert list(metadata.finalizers) == finalizers


def test_object_is_finished_when_nothing_holds_it() -> None:
    metadata = meta_pb2.ObjectMeta()
    assert not deletion.is_finished(metadata, held=False)
    deletion.mark_deleted(metadata, 0, NOW)
    assert deletion.is_finished(metadata, held=False)
    assert not deletion.is_finished(metadata, held=True)
    metadata.finalizers.append("x")
    assert not deletion.is_finished(metadata, held=False)


def test_options_that_contradict_each_other_are_invalid() -> None:
    with pytest.raises(Invalid, match="cannot be both set"):
        deletion.read_options(meta_pb2.DeleteOptions(orphanDependents=True, propagationPolicy="Orphan"))
    with pytest.raises(Invalid, match="Unsupported value"):
        deletion.read_options(meta_pb2.DeleteOptions(propagationPolicy="Sideways"))
    assert deletion.read_options(meta_pb2.DeleteOptions(orphanDependents=True)).propagation == "Orphan"


def test_preconditions() -> None:
    obj: Any = config_map_pb2.ConfigMap()
    obj.metadata.uid, obj.metadata.resourceVersion = "u", "7"
    deletion.check_preconditions(deletion.DeleteRequest(uid="u", resource_version="7"), obj, "configmaps", "")
    with pytest.raises(Conflict, match="UID in precondition: v"):
        deletion.check_preconditions(deletion.DeleteRequest(uid="v"), obj, "configmaps", "")
    with pytest.raises(Conflict, match="ResourceVersion in precondition: 6"):
        deletion.check_preconditions(deletion.DeleteRequest(resource_version="6"), obj, "configmaps", "")
