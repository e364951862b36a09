"""The custom resources that the collector follows: they come and go with their definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tiphys_apimachinery.dynamic import DynamicObject
from tiphys_controller_manager.custom_kinds import class_of
from tiphys_controller_manager.frame import Informers

# From the object before and after a change, and its apiVersion and kind, to the keys that it touches.
Observe = Callable[[Any, Any, str, str], Iterable[str]]


class CustomKinds:
    """Classes of the kinds that definitions have made. add is given the keys that changes of their objects touch."""

    def __init__(self, informers: Informers, observe: Observe, add: Callable[[str], None]) -> None:
        self._informers = informers
        self._observe = observe
        self._add = add
        # By name of the definition, and by group and kind.
        self._followed: dict[str, type[DynamicObject]] = {}
        self._by_kind: dict[tuple[str, str], type[DynamicObject]] = {}

    def find(self, api_version: str, kind: str) -> type[DynamicObject] | None:
        """The class of a kind; in the version that is stored, whatever version is named."""
        return self._by_kind.get((api_version.rpartition("/")[0], kind))

    def definition(self, old: Any, new: Any) -> Iterable[str]:
        """Follow what a definition defines, as it comes, changes and goes. Touches no key by itself."""
        name = (new if new is not None else old).metadata.name
        cls = class_of(new) if new is not None else None
        known = self._followed.get(name)
        if cls is not None and known is not None and _is_same(cls, known):
            return ()
        if known is not None:
            del self._followed[name]
            self._by_kind.pop((known.KIND.group, known.KIND.kind), None)
            self._informers.end(known)  # type: ignore[arg-type]  # in the shape of a message
        if cls is not None:
            self._follow(name, cls)
        return ()

    def _follow(self, name: str, cls: type[DynamicObject]) -> None:
        kind = cls.KIND
        self._followed[name] = self._by_kind[kind.group, kind.kind] = cls

        def enqueue(old: Any, new: Any) -> None:
            for key in self._observe(old, new, kind.api_version, kind.kind):
                self._add(key)

        informer: Any = self._informers.begin(cls)
        informer.add_handler(
            on_add=lambda obj: enqueue(None, obj), on_update=enqueue, on_delete=lambda obj: enqueue(obj, None)
        )


def _is_same(one: type[DynamicObject], other: type[DynamicObject]) -> bool:
    return (one.KIND.service, one.KIND.kind, one.KIND.namespaced) == (
        other.KIND.service,
        other.KIND.kind,
        other.KIND.namespaced,
    )
