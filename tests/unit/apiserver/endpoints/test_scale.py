"""The Scale that stands for an object with replicas."""

from __future__ import annotations

from typing import Any

from tests.unit.apiserver.fake_objects import info_of
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import replication_controller_pb2
from tiphys_apiserver.endpoints.scale import scale_of


def test_scale_shows_wanted_and_seen_replicas_and_the_selector() -> None:
    deployment: Any = apps_pb2.Deployment()
    deployment.metadata.name, deployment.metadata.uid, deployment.metadata.resourceVersion = "d", "u", "7"
    deployment.spec.replicas, deployment.status.replicas = 3, 2
    deployment.spec.selector.matchLabels["a"] = "b"
    deployment.spec.selector.matchExpressions.add(key="c", operator="In", values=["d", "e"])
    scale = scale_of(deployment, info_of(apps_pb2.Deployment))
    assert (scale.metadata.name, scale.metadata.uid, scale.metadata.resourceVersion) == ("d", "u", "7")
    assert (scale.spec.replicas, scale.status.replicas) == (3, 2)
    assert scale.status.selector == "a=b,c in (d,e)"


def test_selector_of_a_replication_controller_is_a_plain_map() -> None:
    controller: Any = replication_controller_pb2.ReplicationController()
    controller.spec.selector["a"] = "b"
    info = info_of(replication_controller_pb2.ReplicationController)
    assert scale_of(controller, info).status.selector == "a=b"
