"""A patch of parts is made on these parts alone, and gives what patching the whole object gives."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.patch import merge, strategic
from tiphys_apiserver.authentication.interface import Credentials
from tiphys_apiserver.endpoints.patch import PatchKind, patch_object
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.request_info import RequestInfo

POD = {
    "metadata": {"name": "p", "labels": {"a": "b", "c": "d"}},
    "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"},
    "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]},
}


def call(validation: str = "") -> Call:
    found = Call(RequestInfo("", "patch", True, "", "v1", "default", "pods", "", "p"), Credentials())
    found.field_validation = validation
    return found


@pytest.mark.parametrize("kind", [PatchKind.MERGE, PatchKind.STRATEGIC], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"status": {"phase": "Running"}}, id="status"),
        pytest.param({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, id="list"),
        pytest.param({"metadata": {"labels": {"a": None}}, "spec": {"nodeName": "m"}}, id="two parts"),
        pytest.param({"status": None}, id="a part away"),
        pytest.param({"kind": "Pod", "status": {"phase": "Failed"}}, id="with its kind"),
        pytest.param({}, id="nothing"),
    ],
)
def test_patching_parts_equals_patching_the_whole(kind: PatchKind, patch: dict[str, Any]) -> None:
    current = json_codec.from_json(Pod, POD)
    whole = json_codec.to_json(current)
    wanted = merge.apply_patch(whole, patch) if kind is PatchKind.MERGE else strategic.apply_patch(Pod, whole, patch)
    patched = patch_object(Pod, current, kind, patch, call())
    assert json_codec.to_json(patched) == json_codec.to_json(json_codec.from_json(Pod, wanted))
    assert current == json_codec.from_json(Pod, POD), "what was patched stays as it was"


def test_a_map_of_the_object_itself_is_patched_too() -> None:
    current = json_codec.from_json(ConfigMap, {"metadata": {"name": "x"}, "data": {"a": "1", "b": "2"}})
    patched = patch_object(ConfigMap, current, PatchKind.MERGE, {"data": {"a": None}}, call())
    assert dict(patched.data) == {"b": "2"}


def test_a_field_that_is_not_there_is_told_with_its_whole_path() -> None:
    current = json_codec.from_json(Pod, POD)
    with pytest.raises(BadRequest, match=r'unknown field "status.fase"'):
        patch_object(Pod, current, PatchKind.MERGE, {"status": {"fase": "x"}}, call("Strict"))
