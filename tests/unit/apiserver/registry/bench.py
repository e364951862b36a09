"""Runs an object through the steps of its kind's strategy, as the store does."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tests.unit.apiserver.fake_objects import FakeObjects, environment, info_of, read
from tiphys_apiserver.registry.catalog import strategy_for
from tiphys_apiserver.registry.strategy import Strategy, WriteContext
from tiphys_component.clock import FakeClock


def strategy_of(cls: type[Message], objects: FakeObjects | None = None) -> Strategy:
    """The strategy that serves the class."""
    return strategy_for(info_of(cls), environment(objects))


def context(subresource: str = "") -> WriteContext:
    """A write at the fake clock's start."""
    return WriteContext(FakeClock().now(), namespace="web", subresource=subresource)


def made(cls: type[Message], text: str) -> Any:
    """The object of a manifest, with defaults, as it would be stored."""
    obj: Any = read(cls, text)
    strategy = strategy_of(cls)
    strategy.apply_defaults(obj)
    obj.metadata.uid = obj.metadata.uid or "uid-0"
    strategy.prepare_for_create(context(), obj)
    return obj


def create_faults(cls: type[Message], text: str) -> list[str]:
    """What is wrong with a new object."""
    obj = made(cls, text)
    return [str(error) for error in strategy_of(cls).validate(context(), obj)]


def update_faults(cls: type[Message], before: str, after: str) -> list[str]:
    """What is wrong with a change."""
    old, new = made(cls, before), read(cls, after)
    strategy = strategy_of(cls)
    strategy.apply_defaults(new)
    strategy.prepare_for_update(context(), new, old)
    return [str(error) for error in strategy.validate_update(context(), new, old)]
