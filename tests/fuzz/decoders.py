"""Coverage-guided fuzzing of what reads strangers' bytes: `python -m tests.fuzz.decoders TARGET [LIBFUZZER-OPTIONS]`.

Only refusals may come out of a decoder; anything else, a crash of the process and more than a few seconds are faults.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import atheris

with atheris.instrument_imports(include=["tiphys_apimachinery", "yaml"]):
    import orjson
    from google.protobuf.message import DecodeError

    from tiphys.api.core.v1 import pod_pb2
    from tiphys_apimachinery.codec import json_codec, proto_codec, yaml_codec
    from tiphys_apimachinery.codec.json_strict import duplicate_members
    from tiphys_apimachinery.errors import APIError
    from tiphys_apimachinery.fields import FieldSelector
    from tiphys_apimachinery.labels import Selector
    from tiphys_apimachinery.patch import json_patch, merge, strategic

POD: Any = {
    "metadata": {"name": "a", "labels": {"a": "b"}, "finalizers": ["x/y"]},
    "spec": {
        "containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}]}
        ],
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}


def read_json(data: bytes) -> None:
    """A body of JSON: parsed, made a message, looked at for repeats, written again."""
    document = json_codec.parse(data)
    sink = json_codec.FieldSink()
    pod = json_codec.from_json(pod_pb2.Pod, document, sink)
    sink.duplicate += duplicate_members(data)
    sink.messages()
    again = json_codec.loads(json_codec.dumps(pod), pod_pb2.Pod)
    assert json_codec.dumps(again) == json_codec.dumps(pod)


def read_yaml(data: bytes) -> None:
    """A body of YAML."""
    document = yaml_codec.parse(data)
    json_codec.from_json(pod_pb2.Pod, document, json_codec.FieldSink())


def read_protobuf(data: bytes) -> None:
    """A body of protobuf: what is taken can be shown as JSON."""
    _, _, raw = proto_codec.decode_envelope(data if data[:4] == proto_codec.MAGIC else proto_codec.MAGIC + data)
    try:
        pod = pod_pb2.Pod.FromString(raw)
    except DecodeError:
        return
    json_codec.check_sayable(pod)
    json_codec.dumps(pod)


def patch_json(data: bytes) -> None:
    """A JSON patch of a pod."""
    json_codec.from_json(pod_pb2.Pod, json_patch.apply_patch(POD, orjson.loads(data)))


def patch_merge(data: bytes) -> None:
    """A merge patch of a pod."""
    json_codec.from_json(pod_pb2.Pod, merge.apply_patch(POD, orjson.loads(data)))


def patch_strategic(data: bytes) -> None:
    """A strategic merge patch of a pod."""
    patch = orjson.loads(data)
    if isinstance(patch, dict):
        json_codec.from_json(pod_pb2.Pod, strategic.apply_patch(pod_pb2.Pod, POD, patch))


def read_selectors(data: bytes) -> None:
    """Selectors of both kinds."""
    text = data.decode("utf-8", "replace")
    for read in (Selector.parse, FieldSelector.parse):
        try:
            read(text)
        except (APIError, ValueError):
            continue


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "json": read_json,
    "yaml": read_yaml,
    "protobuf": read_protobuf,
    "json-patch": patch_json,
    "merge-patch": patch_merge,
    "strategic-patch": patch_strategic,
    "selectors": read_selectors,
}
# Texts to begin with: coverage alone would take long to find the first brace.
SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "json": (orjson.dumps(POD), b'{"metadata":{"name":"a","name":"b","creationTimestamp":"2024-01-01T00:00:00Z"}}'),
    "yaml": (b"metadata: {name: a}\nspec:\n  replicas: 1\n  x: &a [1, *a]\n", b"a: &a\n  <<: *a\n- |\n x\n"),
    "protobuf": (b"k8s\x00\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x05\x0a\x03\x0a\x01a\x1a\x00\x22\x00",),
    "json-patch": (
        b'[{"op":"add","path":"/spec/containers/0/env/-","value":{"name":"x"}},{"op":"remove","path":"/spec"}]',
    ),
    "merge-patch": (b'{"spec":{"containers":null,"volumes":[{"name":"v"}]}}',),
    "strategic-patch": (
        b'{"spec":{"containers":[{"name":"c","$patch":"delete"}],"$setElementOrder/containers":[{"name":"c"}]}}',
        b'{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/y"]},"spec":{"$retainKeys":["a"],"$patch":"replace"}}',
    ),
    "selectors": (b"a in (b,c),!d,e=f,g!=h,i>1", b"metadata.name=a,spec.x!=b\\,c"),
}


def refusing(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, of which a refusal is no fault."""

    def run(data: bytes) -> None:
        try:
            target(data)
        except (APIError, orjson.JSONDecodeError):
            return

    return run


def main() -> None:
    """Fuzz the target named, until libFuzzer's options say that it is enough."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, refusing(TARGETS[name]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
