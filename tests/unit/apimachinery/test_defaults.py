"""Defaults of the schema fill what is unset, and nothing else."""

from __future__ import annotations

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys.api.rbac.v1 import rbac_pb2
from tiphys_apimachinery.defaults import apply_defaults
from tiphys_apimachinery.scheme import load_default


def test_unset_fields_get_their_defaults_at_any_depth() -> None:
    deployment = apps_pb2.Deployment()
    deployment.spec.template.spec.containers.add(name="a").ports.add(containerPort=80)
    apply_defaults(deployment)
    assert deployment.spec.replicas == 1
    assert deployment.spec.strategy.type == "RollingUpdate"
    assert deployment.spec.template.spec.restartPolicy == "Always"
    assert deployment.spec.template.spec.terminationGracePeriodSeconds == 30
    assert deployment.spec.template.spec.containers[0].ports[0].protocol == "TCP"


def test_a_pointer_that_is_zero_stays_zero() -> None:
    deployment = apps_pb2.Deployment()
    deployment.spec.replicas = 0
    apply_defaults(deployment)
    assert deployment.spec.replicas == 0


def test_parts_behind_absent_pointers_stay_absent() -> None:
    pod = pod_pb2.Pod()
    pod.spec.containers.add(name="a")
    apply_defaults(pod)
    assert not pod.spec.containers[0].HasField("readinessProbe")
    pod.spec.containers[0].readinessProbe.handler.exec.command.append("true")
    apply_defaults(pod)
    assert pod.spec.containers[0].readinessProbe.periodSeconds == 10


def test_applying_twice_changes_nothing() -> None:
    binding = rbac_pb2.RoleBinding()
    apply_defaults(binding)
    once = binding.SerializeToString(deterministic=True)
    apply_defaults(binding)
    assert binding.SerializeToString(deterministic=True) == once


def test_every_default_of_the_schema_fits_its_field() -> None:
    for kind in load_default().kinds():
        apply_defaults(kind.message())
