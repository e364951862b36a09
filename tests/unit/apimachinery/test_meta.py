"""Accessors on metadata, conditions and times."""

from __future__ import annotations

import datetime

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery import meta

_NOW = datetime.datetime(2026, 11, 21, 12, 0, 5, 123456, tzinfo=datetime.UTC)


def test_key_joins_and_splits() -> None:
    pod = pod_pb2.Pod()
    pod.metadata.namespace, pod.metadata.name = "default", "web"
    assert meta.namespaced_name(pod) == "default/web"
    assert meta.split_key("default/web") == ("default", "web")
    assert meta.split_key("node") == ("", "node")


def test_controller_is_found_among_owners() -> None:
    owner = apps_pb2.ReplicaSet()
    owner.metadata.name, owner.metadata.uid = "rs", "u1"
    pod = pod_pb2.Pod()
    pod.metadata.ownerReferences.add(kind="Other", name="o", uid="u2")
    assert meta.get_controller_of(pod) is None
    pod.metadata.ownerReferences.append(meta.new_controller_ref(owner, "apps/v1", "ReplicaSet"))
    found = meta.get_controller_of(pod)
    assert found is not None
    assert (found.kind, found.name, found.blockOwnerDeletion) == ("ReplicaSet", "rs", True)
    assert meta.is_controlled_by(pod, owner)


def test_condition_keeps_its_transition_time_while_the_status_stays() -> None:
    status = pod_pb2.PodStatus()
    first = pod_pb2.PodCondition(type="Ready", status="False", reason="A", lastTransitionTime=meta.to_time(_NOW))
    assert meta.set_condition(status.conditions, first)
    later = meta.to_time(_NOW + datetime.timedelta(hours=1))
    again = pod_pb2.PodCondition(type="Ready", status="False", reason="A", lastTransitionTime=later)
    assert not meta.set_condition(status.conditions, again)
    other_reason = pod_pb2.PodCondition(type="Ready", status="False", reason="B", lastTransitionTime=later)
    assert meta.set_condition(status.conditions, other_reason)
    assert status.conditions[0].reason == "B"
    assert status.conditions[0].lastTransitionTime == meta.to_time(_NOW)
    ready = pod_pb2.PodCondition(type="Ready", status="True", lastTransitionTime=later)
    assert meta.set_condition(status.conditions, ready)
    assert status.conditions[0].lastTransitionTime == later
    assert meta.is_condition_true(status.conditions, "Ready")


def test_epoch_is_told_from_no_time() -> None:
    assert meta.to_datetime(meta_pb2.Time()) is None
    assert meta.to_datetime(meta_pb2.Time(seconds=0, nanos=0)) == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def test_time_has_seconds_and_micro_time_microseconds() -> None:
    assert meta.to_datetime(meta.to_time(_NOW)) == _NOW.replace(microsecond=0)
    assert meta.to_datetime(meta.to_micro_time(_NOW)) == _NOW
    assert meta.format_time(_NOW) == "2026-11-21T12:00:05Z"
