"""Which container a request to a kubelet means."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.rest.kubelet import DEFAULT_CONTAINER, choose_container


def pod() -> Any:
    made: Any = pod_pb2.Pod()
    made.metadata.name = "p"
    made.spec.containers.add(name="main")
    made.spec.initContainers.add(name="first")
    made.spec.ephemeralContainers.add().ephemeralContainerCommon.name = "look"
    return made


@pytest.mark.parametrize(("wanted", "chosen"), [("", "main"), ("main", "main"), ("first", "first"), ("look", "look")])
def test_a_container_of_any_sort_is_chosen_by_its_name(wanted: str, chosen: str) -> None:
    assert choose_container(pod(), wanted) == chosen


def test_the_annotation_names_the_default_among_several() -> None:
    several = pod()
    several.spec.containers.add(name="side")
    with pytest.raises(BadRequest, match=r"choose one of: \[main side\] or one of the init containers"):
        choose_container(several, "")
    several.metadata.annotations[DEFAULT_CONTAINER] = "side"
    assert choose_container(several, "") == "side"


def test_a_name_that_no_container_has_is_refused() -> None:
    with pytest.raises(BadRequest, match="container other is not valid for pod p"):
        choose_container(pod(), "other")
