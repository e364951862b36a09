"""Pods of a service follow the first of them."""

from __future__ import annotations

from tests.unit.scheduler.objects import node, pod_message
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.plugins.service_affinity import ServiceAffinity
from tiphys_scheduler.pod_info import PodInfo, pod_info


def member(name: str, **selector: str) -> PodInfo:
    message = pod_message(name, cpu="1")
    message.metadata.labels["app"] = "web"
    message.spec.nodeSelector.update(selector)
    return pod_info(message)


def cluster() -> tuple[Cache, Framework]:
    cache = Cache(Columns())
    for name, region in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        cache.set_node(node(name, cpu="2", labels={"region": region}))
    plugin = ServiceAffinity(["region"], cache, lambda pod: [p for p in cache.placed() if p.labels == pod.labels])
    profile = Profile(filters=(*DEFAULT_PROFILE.filters, plugin), scores=DEFAULT_PROFILE.scores)
    return cache, Framework(profile, cache.columns)


def test_C8_the_pods_of_a_service_keep_to_one_value_of_the_label() -> None:
    cache, framework = cluster()
    regions = []
    for number in range(4):
        info = member(f"p{number}")
        found = framework.place(info)
        assert isinstance(found, Placement)
        cache.assume(info, found.node)
        regions.append(found.node[0])
    assert regions == ["a", "a", "a", "a"]
    refused = framework.place(member("one-too-many"))
    assert isinstance(refused, FitError)
    assert "1 node(s) didn't match service affinity" in refused.message


def test_C8_when_the_last_has_gone_the_next_may_choose_again() -> None:
    cache, framework = cluster()
    info = member("p")
    cache.assume(info, "b1")
    assert isinstance(found := framework.place(member("q")), Placement)
    assert found.node == "b1"
    cache.remove_pod(info.key)
    assert isinstance(found := framework.place(member("q")), Placement)
    assert found.node == "a1"


def test_C8_a_pod_that_names_its_value_follows_nobody() -> None:
    cache, framework = cluster()
    cache.assume(member("p"), "a1")
    assert isinstance(found := framework.place(member("q", region="b")), Placement)
    assert found.node == "b1"
