"""Namespaces: what each one gets, and how one that is deleted is emptied."""

from __future__ import annotations

from typing import Any

from tests.unit.controller_manager.harness import House, house, names
from tiphys.api.core.v1 import config_map_pb2, namespace_pb2, pod_pb2, secret_pb2, service_account_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import Forbidden, StatusCause, StatusDetails
from tiphys_apimachinery.meta import find_condition
from tiphys_apimachinery.scheme import load_default
from tiphys_controller_manager.controllers.namespace.controller import contents
from tiphys_controller_manager.controllers.namespace.plan import Remains, conditions

Namespace = namespace_pb2.Namespace
ServiceAccount = service_account_pb2.ServiceAccount
ConfigMap = config_map_pb2.ConfigMap


def namespace(name: str = "shop", *, going: bool = False) -> Namespace:
    made = Namespace()
    made.metadata.name = name
    made.spec.finalizers.append("kubernetes")
    made.status.phase = "Active"
    if going:
        # What the API server does on delete; it holds by spec.finalizers, the fake by those of the metadata only.
        made.metadata.finalizers.append("example.com/fake")
        made.metadata.deletionTimestamp.seconds = 1
        made.status.phase = "Terminating"
    return made


def put(cls: type[Any], name: str, *finalizers: str) -> Any:
    made = cls()
    made.metadata.name, made.metadata.namespace = name, "shop"
    made.metadata.finalizers.extend(finalizers)
    return made


def condition(h: House, kind: str) -> Any:
    return find_condition(h.client.stored(Namespace, "shop").status.conditions, kind)


async def test_B26_each_namespace_has_a_default_account_also_after_it_was_deleted() -> None:
    async with house("serviceaccount-controller") as h:
        h.client.seed(namespace())
        # Whoever waited for a time, be it as short as a second, would find the clock standing still.
        await h.settle()
        assert names(await h.all(ServiceAccount, "shop")) == ["default"]
        await h.client.delete(ServiceAccount, "default", "shop")
        await h.settle()
        assert names(await h.all(ServiceAccount, "shop")) == ["default"]
        assert h.clock.monotonic() == 0


async def test_a_namespace_that_is_going_gets_no_account() -> None:
    async with house("serviceaccount-controller") as h:
        h.client.seed(namespace(going=True))
        await h.settle()
        assert await h.all(ServiceAccount) == []


async def test_a_refusal_because_the_namespace_ends_is_no_failure() -> None:
    async with house("serviceaccount-controller") as h:
        details = StatusDetails(causes=(StatusCause("NamespaceTerminating", "it ends"),))
        h.client.server.fail("Create", ServiceAccount, Forbidden("ends", details=details))
        h.client.seed(namespace())
        await h.settle()
        assert h.loops["serviceaccount-controller"].report.failures == 0


async def test_B30_the_authority_is_published_restored_and_reverted() -> None:
    async with house("root-ca-certificate-publisher-controller", authority="PEM") as h:
        h.client.seed(namespace())
        await h.settle()
        assert h.client.stored(ConfigMap, "kube-root-ca.crt", "shop").data["ca.crt"] == "PEM"
        edited = h.client.stored(ConfigMap, "kube-root-ca.crt", "shop")
        edited.data["ca.crt"] = "forged"
        await h.client.update(edited)
        await h.settle()
        assert h.client.stored(ConfigMap, "kube-root-ca.crt", "shop").data["ca.crt"] == "PEM"
        await h.client.delete(ConfigMap, "kube-root-ca.crt", "shop")
        await h.settle()
        assert h.client.stored(ConfigMap, "kube-root-ca.crt", "shop").data["ca.crt"] == "PEM"


async def test_B25_pods_go_before_anything_else_is_touched() -> None:
    async with house("namespace-controller") as h:
        pod = put(pod_pb2.Pod, "p", "example.com/hold")
        h.client.seed(pod, put(ConfigMap, "c"), put(secret_pb2.Secret, "s"), namespace(going=True))
        await h.settle()
        assert len(await h.all(ConfigMap, "shop")) == 1
        assert condition(h, "NamespaceContentRemaining").status == "True"
        assert "pods has 1 resource instances" in condition(h, "NamespaceContentRemaining").message
        assert "example.com/hold in 1 resource instances" in condition(h, "NamespaceFinalizersRemaining").message
        await h.client.patch(pod_pb2.Pod, "p", "shop", {"metadata": {"finalizers": None}})
        await h.run_for(3)
        assert await h.all(ConfigMap, "shop") == []
        assert await h.all(secret_pb2.Secret, "shop") == []
        assert "kubernetes" not in h.client.stored(Namespace, "shop").spec.finalizers


async def test_content_elsewhere_is_not_touched() -> None:
    async with house("namespace-controller") as h:
        other = put(ConfigMap, "c")
        other.metadata.namespace = "other"
        h.client.seed(other, namespace(going=True))
        await h.settle()
        assert len(await h.all(ConfigMap, "other")) == 1


async def test_a_living_namespace_is_left_alone() -> None:
    async with house("namespace-controller") as h:
        h.client.seed(namespace(), put(ConfigMap, "c"))
        await h.settle()
        assert len(await h.all(ConfigMap, "shop")) == 1


async def test_what_cannot_be_deleted_is_told_and_tried_again() -> None:
    async with house("namespace-controller") as h:
        h.client.server.fail("DeleteCollection", ConfigMap, Forbidden("no"), times=2)
        h.client.seed(put(ConfigMap, "c"), namespace(going=True))
        await h.settle()
        assert condition(h, "NamespaceDeletionContentFailure").reason == "ContentDeletionFailed"
        await h.run_for(3)
        assert await h.all(ConfigMap, "shop") == []


def test_pods_come_first_and_events_last() -> None:
    order = [info.plural for info in contents(load_default())]
    assert order[0] == "pods"
    assert order[-1] == "events"
    assert order.count("events") == 1
    assert "nodes" not in order


def test_an_empty_namespace_has_five_good_conditions() -> None:
    made = conditions(Remains(), meta_pb2.Time(seconds=1))
    assert [item.status for item in made] == ["False"] * 5
