"""What expressions of mutating policies make of objects, and what they may not make."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.cel.program import Activation
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.patch.typed import shape_of
from tiphys_apimachinery.schema import descriptor_of
from tiphys_apiserver.admission.policies import mutation
from tiphys_apiserver.cel.expressions import compile_expression

SHAPE = shape_of(descriptor_of(Pod))
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "labels": {"x": "1"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


def value(expression: str) -> Any:
    return compile_expression(expression, frozenset({"object"}), constructs=True).evaluate(Activation({"object": POD}))


def merged(expression: str) -> Any:
    return mutation.merged(POD, value(expression), SHAPE)


def patched(expression: str) -> Any:
    return mutation.patched(POD, value(expression))


@pytest.mark.parametrize(
    ("expression", "where", "found"),
    [
        pytest.param(
            "Object{metadata: Object.metadata{labels: {'y': '2'}}}", ("metadata", "labels"), {"x": "1", "y": "2"},
            id="map",
        ),
        pytest.param(
            "Object{spec: Object.spec{containers: [Object.spec.containers"
            "{name: 'side', image: object.spec.containers[0].image}]}}",
            ("spec", "containers"), [{"name": "c", "image": "i"}, {"name": "side", "image": "i"}], id="item",
        ),
        pytest.param(
            "Object{spec: Object.spec{containers: object.spec.containers"
            ".map(c, Object.spec.containers{name: c.name, tty: true})}}",
            ("spec", "containers"), [{"name": "c", "image": "i", "tty": True}], id="each item",
        ),
        pytest.param("Object{spec: Object.spec{?hostname: optional.none(), nodeName: 'n'}}", ("spec", "nodeName"), "n",
                     id="optional field"),
        pytest.param("Object{spec: Object.spec{activeDeadlineSeconds: 5u + 1u}}", ("spec", "activeDeadlineSeconds"), 6,
                     id="number"),
    ],
)  # fmt: skip
def test_A48_an_applied_object_is_merged(expression: str, where: tuple[str, ...], found: Any) -> None:
    document = merged(expression)
    for name in where:
        document = document[name]
    assert document == found
    assert POD["spec"] == {"containers": [{"name": "c", "image": "i"}]}


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        pytest.param("{'spec': 1}", "must evaluate to Object but got map", id="map"),
        pytest.param("Object{spec: Object.status{}}", 'unexpected type name "Object.status"', id="type"),
        pytest.param(
            "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', command: ['a']}]}}",
            "may not mutate atomic arrays, maps or structs: .spec.containers.command", id="atomic",
        ),
        pytest.param(
            "Object{spec: Object.spec{containers: [Object.spec.containers{image: 'x'}]}}", "omits all key fields",
            id="no key",
        ),
        pytest.param("Object{kind: 'Node'}", "may not change kind", id="kind"),
        pytest.param("Object{spec: Object.spec{hostname: ip('::1')}}", "has no form in JSON", id="no JSON"),
    ],
)  # fmt: skip
def test_A48_what_can_not_be_merged_is_told(expression: str, words: str) -> None:
    with pytest.raises(CelError, match=words):
        merged(expression)


def test_A48_operations_patch_the_object() -> None:
    document = patched(
        "[JSONPatch{op: 'test', path: '/metadata/labels/x', value: '1'},"
        " JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'},"
        " JSONPatch{op: 'copy', from: '/metadata/name', path: '/spec/hostname'},"
        " JSONPatch{op: 'add', path: '/spec/containers/-', value: Object.spec.containers{name: 'd'}},"
        " JSONPatch{op: 'add', path: '/spec/deadline', value: duration('90s')}]"
    )
    assert document["metadata"]["labels"] == {"x": "1", "a/b": "c"}
    assert document["spec"]["hostname"] == "a"
    assert document["spec"]["containers"][1] == {"name": "d"}
    assert document["spec"]["deadline"] == "90s"


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        pytest.param("Object{}", "should evaluate to array", id="no list"),
        pytest.param("[{'op': 'add'}]", "array of JSONPatch, got map", id="maps"),
        pytest.param("[JSONPatch{op: 'add', path: '/a', colour: 1}]", "no field colour", id="field"),
        pytest.param("[JSONPatch{op: 'add'}]", "JSONPatch.path must be a string", id="no path"),
        pytest.param("[JSONPatch{op: 'test', path: '/kind', value: 'Node'}]", "JSON Patch: ", id="test fails"),
        pytest.param("[JSONPatch{op: 'replace', path: '', value: 1}]", "leaves no object", id="nothing left"),
    ],
)
def test_A48_what_is_no_patch_is_told(expression: str, words: str) -> None:
    with pytest.raises(CelError, match=words):
        patched(expression)
