"""Pods written with the texts of specs remembered: the same bytes as written anew."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.registry.bench import made
from tests.unit.apiserver.registry.core.test_approved_specs import pod
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec import json_codec
from tiphys_apiserver.registry.core.approved_specs import spec_digest
from tiphys_apiserver.registry.core.spec_texts import SpecTexts


def with_status(one: Any) -> Any:
    one.status.phase = "Running"
    return one


def with_strange_text(one: Any) -> Any:
    one.spec.containers[0].command.extend(["kube-api-access-abcde", 'say "\0" \u2028', "kube-api-access-\0\0\0\0\0"])
    return one


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(pod(), id="with a token"),
        pytest.param(with_status(pod()), id="with a status"),
        pytest.param(with_strange_text(pod()), id="with the volume's name and the mask in a command"),
        pytest.param(
            made(Pod, "{metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}"), id="without volumes"
        ),
        pytest.param(Pod(), id="without anything"),
    ],
)
def test_a_pod_is_written_the_same_the_first_and_the_second_time(one: Any) -> None:
    texts = SpecTexts()
    assert [texts.dumps(one), texts.dumps(one)] == [json_codec.dumps(one)] * 2


def test_each_pod_keeps_its_own_name_for_the_token() -> None:
    texts = SpecTexts()
    texts.dumps(pod("abcde"))
    assert texts.dumps(pod("x2y4z")) == json_codec.dumps(pod("x2y4z"))


def test_a_spec_is_made_text_once_for_all_pods_of_an_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = SpecTexts()
    made_texts = 0
    dumps = json_codec.dumps

    def count(message: Any, *, with_type_meta: bool = True) -> bytes:
        nonlocal made_texts
        made_texts += 1
        return dumps(message, with_type_meta=with_type_meta)

    monkeypatch.setattr(json_codec, "dumps", count)
    for token in ("abcde", "fghij", "klmno"):
        texts.dumps(pod(token))
    assert made_texts == 1


def test_the_texts_met_first_are_forgotten_first() -> None:
    texts = SpecTexts(most=2)
    kept = [pod(image=image) for image in ("a", "b", "c")]
    for one in kept:
        texts.dumps(one)
    assert list(texts._texts) == [spec_digest(one.spec) for one in kept[1:]]
