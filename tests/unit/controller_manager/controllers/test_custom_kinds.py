"""The kinds that definitions make, as controllers follow them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys_apimachinery.codec import json_codec
from tiphys_controller_manager.controllers.garbage_collector.custom import CustomKinds
from tiphys_controller_manager.custom_kinds import class_of, namespaced


def _definition(*, established: str = "True", scope: str = "Namespaced", versions: tuple[str, ...] = ("v1",)) -> Any:
    return json_codec.from_json(
        CustomResourceDefinition,
        {
            "metadata": {"name": "crontabs.example.com"},
            "spec": {
                "group": "example.com",
                "scope": scope,
                "versions": [{"name": name, "served": True, "storage": name == versions[-1]} for name in versions],
            },
            "status": {
                "acceptedNames": {"plural": "crontabs", "kind": "CronTab"},
                "conditions": [{"type": "Established", "status": established}],
            },
        },
    )


class _Informer:
    def __init__(self) -> None:
        self.on_add: Callable[[Any], None] | None = None

    def add_handler(self, *, on_add: Callable[[Any], None], **_others: Any) -> None:
        self.on_add = on_add


class _Informers:
    """Notes what is begun and ended."""

    def __init__(self) -> None:
        self.running: dict[type[Any], _Informer] = {}

    def begin(self, cls: type[Any]) -> Any:
        return self.running.setdefault(cls, _Informer())

    def end(self, cls: type[Any]) -> None:
        del self.running[cls]


def _kinds(keys: list[str]) -> tuple[CustomKinds, _Informers]:
    informers: Any = _Informers()

    def observe(_old: Any, new: Any, api_version: str, kind: str) -> list[str]:
        return [f"{api_version}/{kind}/{new.metadata.name}"]

    return CustomKinds(informers, observe, keys.append), informers


def test_a_kind_is_known_in_the_version_that_is_stored() -> None:
    found = class_of(_definition(versions=("v1beta1", "v1")))
    assert found is not None
    assert found.KIND.service == "tiphys.apiserver.custom.v1.crontabs.example.com"


def test_a_definition_that_is_not_established_makes_no_kind() -> None:
    assert class_of(_definition(established="False")) is None


def test_a_namespace_holds_namespaced_kinds_only() -> None:
    assert namespaced([_definition(scope="Cluster")]) == []
    assert [cls.KIND.kind for cls in namespaced([_definition()])] == ["CronTab"]


def test_A35_a_kind_is_followed_while_its_definition_stands() -> None:
    keys: list[str] = []
    kinds, informers = _kinds(keys)
    kinds.definition(None, _definition())
    (cls, informer), *_ = informers.running.items()
    assert kinds.find("example.com/v1beta1", "CronTab") is cls
    obj = cls()
    obj.metadata.name = "one"
    assert informer.on_add is not None
    informer.on_add(obj)
    assert keys == ["example.com/v1/CronTab/one"]
    kinds.definition(_definition(), _definition())
    assert list(informers.running) == [cls]
    kinds.definition(_definition(), None)
    assert not informers.running
    assert kinds.find("example.com/v1", "CronTab") is None


def test_A35_another_stored_version_is_followed_in_place_of_the_first() -> None:
    kinds, informers = _kinds([])
    kinds.definition(None, _definition())
    kinds.definition(_definition(), _definition(versions=("v1", "v2")))
    assert [cls.KIND.version for cls in informers.running] == ["v2"]
