"""Objects of a server in memory, for tests of what reads and writes them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import yaml
from google.protobuf.message import Message

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import AlreadyExists, NotFound
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Selector
from tiphys_apimachinery.scheme import ResourceInfo, load_default
from tiphys_apiserver.registry.selectable import FieldReader
from tiphys_apiserver.registry.strategy import Environment
from tiphys_component.clock import FakeClock

M = TypeVar("M", bound=Message)
P = TypeVar("P")


class FakeObjects:
    """Implements ObjectAccess on a dictionary; uids and versions count up."""

    def __init__(self, *objects: Message) -> None:
        self._stored: dict[tuple[type[Message], str, str], Any] = {}
        self._versions: dict[type[Message], int] = {}
        self._numbers = itertools.count(1)
        self.created: list[Any] = []
        for obj in objects:
            self.put(obj)

    def put(self, obj: Any) -> None:
        """Store an object as it is, new or not."""
        kept = type(obj)()
        kept.CopyFrom(obj)
        if not kept.metadata.uid:
            kept.metadata.uid = f"uid-{next(self._numbers)}"
        self._stored[type(obj), obj.metadata.namespace, obj.metadata.name] = kept
        self._versions[type(obj)] = self._versions.get(type(obj), 0) + 1

    def get_nowait(self, cls: type[M], name: str, namespace: str = "") -> M | None:
        """A copy, or None."""
        found = self._stored.get((cls, namespace, name))
        if found is None:
            return None
        copy = cls()
        copy.CopyFrom(found)
        return copy

    async def get(self, cls: type[M], name: str, namespace: str = "") -> M:
        """A copy. Raises NotFound."""
        found = self.get_nowait(cls, name, namespace)
        if found is None:
            raise NotFound.of(info_of(cls).plural, name, group=info_of(cls).group)
        return found

    async def list(
        self, cls: type[M], namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> list[M]:
        """Copies in key order."""
        labels, fields = Selector.parse(label_selector), FieldSelector.parse(field_selector)
        reader = FieldReader(info_of(cls))
        found = (
            self.get_nowait(cls, name, space)
            for (kind, space, name), obj in sorted(self._stored.items(), key=lambda item: item[0][1:])
            if kind is cls
            and namespace in ("", space)
            and labels.matches(obj.metadata.labels)
            and fields.matches(reader.read(obj))
        )
        return [obj for obj in found if obj is not None]

    async def project(
        self, cls: type[M], make: Callable[[M], P], memory: dict[str, tuple[int, P]], *, field_selector: str = ""
    ) -> Sequence[P]:
        """What make makes of each object; memory is not used."""
        return [make(obj) for obj in await self.list(cls, field_selector=field_selector)]

    def version(self, cls: type[Message]) -> int:
        """How often the kind changed."""
        return self._versions.get(cls, 0)

    async def create(self, obj: M) -> M:
        """Store a new object. Raises AlreadyExists."""
        made: Any = obj
        metadata = made.metadata
        if (type(obj), metadata.namespace, metadata.name) in self._stored:
            raise AlreadyExists.of(info_of(type(obj)).plural, metadata.name)
        self.put(obj)
        self.created.append(obj)
        return obj

    async def modify(
        self, cls: type[M], name: str, namespace: str, change: Callable[[M], None], *, subresource: str = ""
    ) -> M:
        """Change an object. Raises NotFound."""
        obj = await self.get(cls, name, namespace)
        change(obj)
        if obj != self._stored[cls, namespace, name]:
            self.put(obj)
        return obj

    async def delete(self, cls: type[Message], name: str, namespace: str = "") -> None:
        """Drop an object; dropping what is gone succeeds."""
        if self._stored.pop((cls, namespace, name), None) is not None:
            self._versions[cls] += 1


def info_of(cls: type[Message]) -> ResourceInfo:
    """The resource whose objects are of the class."""
    info = load_default().by_message(cls)
    assert info is not None
    return info


def read(cls: type[M], text: str) -> M:
    """The object that YAML describes."""
    return json_codec.from_json(cls, yaml.safe_load(text), None)


def build(cls: type[M], **members: Any) -> M:
    """The object with these JSON members."""
    return json_codec.from_json(cls, members, None)


def environment(objects: FakeObjects | None = None, clock: FakeClock | None = None) -> Environment:
    """What strategies hold on to, with fixed ids and numbers."""
    numbers = itertools.count(1)
    return Environment(clock or FakeClock(), lambda: f"uid-{next(numbers)}", random.Random(7), objects or FakeObjects())
