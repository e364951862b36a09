"""Objects of kinds that are defined at run time."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.dynamic import DynamicKind, Unchecked, new_class
from tiphys_apimachinery.errors import BadRequest


def _class(*, has_status: bool = True) -> Any:
    return new_class(DynamicKind("example.com", "v1", "CronTab", Unchecked(), has_status, "crontabs"))


_DOCUMENT = {
    "apiVersion": "example.com/v1",
    "kind": "CronTab",
    "metadata": {"name": "one", "labels": {"a": "b"}},
    "spec": {"image": "x"},
}


def test_an_object_survives_the_way_through_bytes() -> None:
    cls = _class()
    obj = json_codec.from_json(cls, _DOCUMENT)
    again = cls.FromString(obj.SerializeToString())
    assert again == obj
    assert json_codec.to_json(again) == _DOCUMENT
    assert json_codec.loads(json_codec.dumps(again), cls) == obj


def test_a_copy_is_independent() -> None:
    obj: Any = json_codec.from_json(_class(), _DOCUMENT)
    copy = type(obj)()
    copy.CopyFrom(obj)
    copy.content["spec"]["image"] = "y"
    copy.metadata.name = "two"
    assert (obj.content["spec"]["image"], obj.metadata.name) == ("x", "one")
    assert copy != obj


def test_what_is_handed_out_as_json_is_not_the_object() -> None:
    obj: Any = json_codec.from_json(_class(), _DOCUMENT)
    json_codec.to_json(obj)["spec"]["image"] = "y"
    assert obj.content["spec"]["image"] == "x"


@pytest.mark.parametrize(
    ("has_status", "expected"),
    [pytest.param(True, ["status"], id="with a door of its own"), pytest.param(False, ["spec"], id="as all else")],
)
def test_a_changed_status_counts_as_wanted_where_it_has_no_door(has_status: bool, expected: list[str]) -> None:
    old: Any = json_codec.from_json(_class(has_status=has_status), _DOCUMENT)
    new = type(old)()
    new.CopyFrom(old)
    new.content["status"] = {"ready": True}
    assert new.changed_members(old) == expected


def test_what_is_no_object_is_refused() -> None:
    cls = _class()
    faulty: Any
    for faulty in ([], {"metadata": []}, {"metadata": {"name": 1}}):
        with pytest.raises(BadRequest):
            json_codec.from_json(cls, faulty)


def test_its_name_is_not_taken_for_that_of_a_built_in_kind() -> None:
    pod = new_class(DynamicKind("example.com", "v1", "Pod", Unchecked()))
    assert pod.DESCRIPTOR.name != "Pod"
