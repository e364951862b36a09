"""What turning a typical pod from one form into another costs, in µs of CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from tests.bench.sample_pod import sample_pod
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.codec import json_codec, proto_codec
from tiphys_apimachinery.defaults import apply_defaults
from tiphys_apimachinery.validation import validate_fields


@dataclass(frozen=True, slots=True)
class CodecFigures:
    """µs of CPU for one pod each; DESIGN.md wants to_json and from_json at most 60."""

    json_bytes: int
    to_json_us: float
    from_json_us: float
    dumps_us: float
    loads_us: float
    strict_loads_us: float
    serialize_us: float
    parse_us: float
    fill_like_go_us: float
    defaults_us: float
    validate_us: float


def measure(*, rounds: int = 7, calls: int = 300) -> CodecFigures:
    """Medians over rounds of so many calls each; takes about a second."""
    value = sample_pod()
    text = orjson.dumps(value)
    pod = json_codec.from_json(pod_pb2.Pod, value)
    raw = pod.SerializeToString()
    filled = pod_pb2.Pod.FromString(raw)

    def cpu_us(work: Callable[[], object]) -> float:
        return _median_us(work, rounds, calls)

    return CodecFigures(
        json_bytes=len(text),
        to_json_us=cpu_us(lambda: json_codec.to_json(pod)),
        from_json_us=cpu_us(lambda: json_codec.from_json(pod_pb2.Pod, value)),
        dumps_us=cpu_us(lambda: json_codec.dumps(pod)),
        loads_us=cpu_us(lambda: json_codec.loads(text, pod_pb2.Pod)),
        strict_loads_us=cpu_us(lambda: json_codec.loads(text, pod_pb2.Pod, strict=True)),
        serialize_us=cpu_us(pod.SerializeToString),
        parse_us=cpu_us(lambda: pod_pb2.Pod.FromString(raw)),
        fill_like_go_us=cpu_us(lambda: proto_codec.fill_like_go(filled)),
        defaults_us=cpu_us(lambda: apply_defaults(filled)),
        validate_us=cpu_us(lambda: validate_fields(filled)),
    )


def _median_us(work: Callable[[], object], rounds: int, calls: int) -> float:
    work()
    figures: list[float] = []
    for _ in range(rounds):
        begin = time.process_time_ns()
        for _ in range(calls):
            work()
        figures.append((time.process_time_ns() - begin) / calls / 1000)
    return sorted(figures)[len(figures) // 2]
