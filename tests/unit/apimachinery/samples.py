"""Random objects of any kind, made from the descriptors, with only values that Kubernetes can hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from tiphys_apimachinery.schema import INT_RANGES, Field, Kind, descriptor_of, fields_of, message_kind, only_field

M = TypeVar("M", bound=Message)

_CHARACTERS = 'abcxyz019-._/ "\\\n\tÄ→𝄞'
_QUANTITIES = ["0", "1", "100m", "1Gi", "1500m", "12e6", "-5", "128Mi", "1n"]
_RAW = [b"{}", b'{"a":[1,null,"x"]}', b'"text"', b"7", b'{"f:metadata":{}}']


def random_message(cls: type[M], seed: int, *, depth: int = 7) -> M:
    """A message of the class, the same for the same seed; parts deeper than depth stay empty."""
    return cls(**_Sampler(random.Random(seed)).struct(descriptor_of(cls), depth))


class _Sampler:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def struct(self, descriptor: Descriptor, depth: int) -> dict[str, Any]:
        fields = [field for field in fields_of(descriptor) if depth > 0 or field.message is None]
        chosen = self._rng.sample(fields, min(len(fields), self._rng.choice([0, 1, 2, 4, 8, 30])))
        return {field.name: self._field(field, depth - 1) for field in chosen}

    def _field(self, field: Field, depth: int) -> Any:
        if field.is_list:
            return [self._value(field, depth) for _ in range(self._rng.randint(1, 2))]
        if field.is_map:
            return {self._text(): self._value(field, depth) for _ in range(self._rng.randint(1, 3))}
        return self._value(field, depth)

    def _value(self, field: Field, depth: int) -> Any:
        if field.message is None:
            return self._scalar(field)
        if field.kind is Kind.STRUCT:
            return self.struct(field.message, depth)
        return _SPECIAL[message_kind(field.message)](self, field.message)

    def _scalar(self, field: Field) -> Any:
        match field.kind:
            case Kind.STRING:
                return self._text()
            case Kind.BOOL:
                return self._rng.random() < 0.5
            case Kind.INT:
                low, high = INT_RANGES[field.go_type]
                return self._rng.choice([0, 1, low, high, self._rng.randint(low, high)])
            case Kind.FLOAT:
                return self._rng.choice([0.0, 1.0, -2.5, 1e300, 0.1])
            case _:
                return self._rng.randbytes(self._rng.randint(1, 5))

    def _text(self) -> str:
        return "".join(self._rng.choices(_CHARACTERS, k=self._rng.randint(0, 6)))

    def time(self, descriptor: Descriptor) -> dict[str, Any]:
        nanos = self._rng.randint(0, 999_999) * 1000 if message_kind(descriptor) is Kind.MICRO_TIME else 0
        seconds = self._rng.choice([0, -1, 253402300799, -62135596799, self._rng.randint(-(10**10), 10**10)])
        return {"seconds": seconds, "nanos": nanos}

    def duration(self, _: Descriptor) -> dict[str, Any]:
        return {
            "duration": self._rng.choice([0, 1, -1500, 10**9, 3_600_000_000_000, self._rng.randint(-(2**62), 2**62)])
        }

    def quantity(self, _: Descriptor) -> dict[str, Any]:
        return {"string": self._rng.choice(_QUANTITIES)}

    def int_or_string(self, _: Descriptor) -> dict[str, Any]:
        if self._rng.random() < 0.5:
            return {"type": 0, "intVal": self._rng.randint(-(2**31), 2**31 - 1), "strVal": ""}
        return {"type": 1, "intVal": 0, "strVal": self._text()}

    def raw(self, descriptor: Descriptor) -> dict[str, Any]:
        return {only_field(descriptor): self._rng.choice(_RAW)}

    def items(self, descriptor: Descriptor) -> dict[str, Any]:
        return {only_field(descriptor): [self._text() for _ in range(self._rng.randint(1, 2))]}

    def schema_or(self, descriptor: Descriptor) -> dict[str, Any]:
        schema = {"type": self._text(), "nullable": True}
        match message_kind(descriptor):
            case Kind.SCHEMA_OR_BOOL:
                choices: list[dict[str, Any]] = [
                    {"allows": False},
                    {"allows": True},
                    {"allows": True, "schema": schema},
                ]
            case Kind.SCHEMA_OR_STRINGS:
                choices = [{"property": ["a", ""]}, {"schema": schema}]
            case _:
                choices = [{"jSONSchemas": [schema, {}]}, {"schema": schema}]
        return self._rng.choice(choices)


_SPECIAL: dict[Kind, Callable[[_Sampler, Descriptor], dict[str, Any]]] = {
    Kind.TIME: _Sampler.time,
    Kind.MICRO_TIME: _Sampler.time,
    Kind.DURATION: _Sampler.duration,
    Kind.QUANTITY: _Sampler.quantity,
    Kind.INT_OR_STRING: _Sampler.int_or_string,
    Kind.RAW: _Sampler.raw,
    Kind.LIST_WRAPPER: _Sampler.items,
    Kind.SCHEMA_OR_BOOL: _Sampler.schema_or,
    Kind.SCHEMA_OR_LIST: _Sampler.schema_or,
    Kind.SCHEMA_OR_STRINGS: _Sampler.schema_or,
}
