"""Specs met before are read and filled once, and are what they would have been."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.apiserver.registry.bench import strategy_of
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec import json_codec
from tiphys_apiserver.registry.core.known_specs import KnownSpecs


def document(name: str, image: str = "busybox", **more: Any) -> dict[str, Any]:
    """A new pod of an owner whose pods differ in nothing but their names."""
    containers = [{"name": "c", "image": image, "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 1}]}]
    return {"metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"containers": containers, **more}}


class Filling:
    """Fills defaults as the strategy of pods does, and counts."""

    def __init__(self) -> None:
        self.strategy = strategy_of(Pod)
        self.count = 0

    def __call__(self, pod: Any) -> None:
        self.count += 1
        self.strategy.apply_defaults(pod)


def read(known: KnownSpecs, fill: Filling, given: dict[str, Any]) -> Any:
    """A pod as a create goes on with it."""
    pod, is_filled = known.read(given, json_codec.FieldSink())
    if not is_filled:
        fill.strategy.apply_defaults(pod)
    return pod


def test_a_known_pod_is_what_it_would_have_been() -> None:
    fill = Filling()
    known = KnownSpecs(Pod, fill)
    for number in range(5):
        given = document(f"p{number}", nodeSelector={"disk": "fast", "zone": "a"})
        plain: Any = json_codec.from_json(Pod, given)
        fill.strategy.apply_defaults(plain)
        assert read(known, fill, given) == plain


def test_the_pods_of_an_owner_are_filled_once() -> None:
    fill = Filling()
    known = KnownSpecs(Pod, fill)
    answers = [known.read(document(f"p{number}"), json_codec.FieldSink())[1] for number in range(50)]
    assert answers == [False, False, *[True] * 48]
    assert fill.count == 1


def test_a_known_spec_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownSpecs(Pod, Filling())
    for name in "ab":
        known.read(document(name), None if name == "" else json_codec.FieldSink())
    seen: list[Any] = []
    real = json_codec.from_json

    def watched(cls: Any, data: Any, sink: Any = None) -> Any:
        seen.append(data["spec"])
        return real(cls, data, sink)

    monkeypatch.setattr(json_codec, "from_json", watched)
    known.read(document("c"), json_codec.FieldSink())
    assert seen == [{}]


def test_pods_do_not_share_what_was_remembered() -> None:
    known = KnownSpecs(Pod, Filling())
    pods = [known.read(document(name), json_codec.FieldSink())[0] for name in "abcd"]
    pods[2].spec.containers[0].image = "changed"
    assert pods[3].spec.containers[0].image == "busybox"
    assert known.read(document("e"), json_codec.FieldSink())[0].spec.containers[0].image == "busybox"


def test_unknown_members_are_told_each_time() -> None:
    known = KnownSpecs(Pod, Filling())
    for name in "abc":
        sink = json_codec.FieldSink()
        known.read(document(name, nonsense=1), sink)
        assert sink.unknown == ["spec.nonsense"]
    # Who does not look for them makes nobody else miss them.
    for name in "abc":
        known.read(document(name, other=1), None)
    sink = json_codec.FieldSink()
    known.read(document("d", other=1), sink)
    assert sink.unknown == ["spec.other"]


@pytest.mark.parametrize("spec", [None, {}, [], "text"], ids=["absent", "empty", "list", "text"])
def test_what_is_no_spec_is_left_to_the_reader(spec: Any) -> None:
    known = KnownSpecs(Pod, Filling())
    given = {"metadata": {"name": "p"}} if spec is None else {"metadata": {"name": "p"}, "spec": spec}
    outcomes = []
    for make in (lambda: json_codec.from_json(Pod, given), lambda: known.read(given, json_codec.FieldSink())[0]):
        try:
            outcomes.append(make())
        except Exception as err:
            outcomes.append((type(err), str(err)))
    assert outcomes[0] == outcomes[1]
    assert len(known) == 0


def test_memory_is_bounded() -> None:
    size = len(orjson.dumps(document("p")["spec"]))
    known = KnownSpecs(Pod, Filling(), most_bytes=size * 10)
    for number in range(100):
        known.read(document("p", image=f"i{number:06}"), json_codec.FieldSink())
    assert 0 < len(known) <= 10
    assert known._bytes == sum(len(text) + len(kept or b"") for text, kept in known._known.items())
