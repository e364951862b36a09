"""Every resource that the server has: its store, its strategy, its cache, and the versions it is served in.

Those of the contracts are there from the start; crd/ adds and removes others while the server runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apimachinery.scheme import ResourceInfo, Scheme
from tiphys_apiserver.registry.catalog import strategy_for
from tiphys_apiserver.registry.conversion import Converter, RemoteConverter, converter_for
from tiphys_apiserver.registry.store import ResourceStore
from tiphys_apiserver.registry.strategy import Environment
from tiphys_apiserver.server.request_info import RequestInfo
from tiphys_apiserver.storage.cacher import Cacher
from tiphys_apiserver.storage.interface import Store
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat
from tiphys_component.app import start_loop

# Resources that are answered and not stored: reviews, the collection of bindings, component statuses.
_STORED_VERBS = frozenset({"create", "delete"})


class Served:
    """One resource in one version. converter is None where that is the version it is stored in.

    Where remote is given somebody else converts, and objects may be stored in several versions.
    """

    __slots__ = ("converter", "fields", "format", "frames", "info", "remote", "store")

    def __init__(
        self,
        info: ResourceInfo,
        store: ResourceStore,
        converter: Converter | None,
        remote: RemoteConverter | None = None,
    ) -> None:
        self.info = info
        self.store = store
        self.converter = converter
        # The fields beside metadata's that may be selected in this version; None where those of the cache may.
        self.fields: frozenset[str] | None = None
        # Makers of watch frames, by form: the same for all watchers, and gone when the kind is.
        self.frames: dict[tuple[Any, str], Any] = {}
        self.remote = remote
        if remote is not None:
            self.format = remote.format
        else:
            self.format = store.cacher.format if converter is None else object_format(info)

    def to_storage(self, obj: Any) -> Any:
        """The object in the stored version."""
        return obj if self.converter is None else self.converter.to_storage(obj)

    def from_storage(self, obj: Any) -> Any:
        """The object in the served version."""
        return obj if self.converter is None else self.converter.from_storage(obj)

    async def stored_form(self, obj: Any) -> Any:
        """The object in the stored version, by whoever converts."""
        if self.remote is not None:
            return await self.remote.to_storage(obj)
        if self.converter is None or not self.store.strategy.may_take_long:
            return self.to_storage(obj)
        # Its own version's rules are asked on the way.
        return await self.store.aside.run(partial(self.converter.to_storage, obj))

    async def served_form(self, obj: Any) -> Any:
        """The object in the served version, by whoever converts."""
        return self.from_storage(obj) if self.remote is None else await self.remote.from_storage(obj)

    async def viewed(self, items: Sequence[CachedObject]) -> Sequence[CachedObject]:
        """Cached objects in the served version, by whoever converts."""
        if self.remote is not None:
            return await self.remote.view(items)
        return items if self.converter is None else [self.view(cached) for cached in items]

    def view(self, cached: CachedObject) -> CachedObject:
        """A cached object in the served version."""
        if self.converter is None:
            return cached
        return CachedObject(cached.key, cached.rv, self.from_storage(cached.message()), self.format)


class ResourceTable:
    """All resources by path and by class. Caches run in the task group given to start."""

    def __init__(self, scheme: Scheme, store: Store, environment: Environment) -> None:
        self._served: dict[tuple[str, str, str], Served] = {}
        self._by_class: dict[type[Message], Served] = {}
        self._by_kind: dict[tuple[str, str], Served] = {}
        # Kinds that were defined at run time, and the tasks of those of their caches that somebody has asked for.
        self._custom: dict[tuple[str, str, str], Served] = {}
        self._following: dict[ResourceStore, asyncio.Task[Any]] = {}
        self._group: asyncio.TaskGroup | None = None
        # Grows with every kind that comes or goes, for those who keep what they derived.
        self.generation = 0
        stored: list[ResourceInfo] = [info for info in scheme.resources() if set(info.verbs) >= _STORED_VERBS]
        for info in stored:
            if converter_for(info) is None:
                self._add(info, self._new_store(info, store, environment), None)
        for info in stored:
            converter = converter_for(info)
            if converter is not None:
                home = self._served[converter.home]
                self._add(info, home.store, converter)

    def _new_store(self, info: ResourceInfo, store: Store, environment: Environment) -> ResourceStore:
        strategy = strategy_for(info, environment)
        made = object_format(info, strategy.selectable_fields, strategy.dumps)
        cacher = Cacher(f"{info.storage_key_prefix}/", made, store, environment.clock)
        return ResourceStore(info, strategy, store, cacher, environment=environment)

    def _add(self, info: ResourceInfo, store: ResourceStore, converter: Converter | None) -> None:
        served = Served(info, store, converter)
        self._served[(info.group, info.version, info.plural)] = served
        self._by_kind[(served.format.api_version, info.kind)] = served

    def find(self, group: str, version: str, plural: str) -> Served | None:
        """The resource under a path, None where there is none."""
        return self._served.get((group, version, plural)) or self._find_custom((group, version, plural))

    def _find_custom(self, place: tuple[str, str, str]) -> Served | None:
        served = self._custom.get(place)
        if served is not None and served.store not in self._following:
            self._follow(served.store)
        return served

    def _follow(self, store: ResourceStore) -> None:
        """Fill the cache of a kind that was defined at run time: most such kinds are defined and hardly used."""
        if self._group is None:
            raise ServiceUnavailable("the server is not ready yet")
        name = f"cache of {store.resource.plural}.{store.resource.group}"
        self._following[store] = start_loop(self._group, _follow(store), name)

    def add(self, kinds: Sequence[Served]) -> None:
        """Serve the versions of a kind that was defined at run time. Their caches are filled when first asked for."""
        for served in kinds:
            info = served.info
            self._custom[info.group, info.version, info.plural] = served
        self.generation += 1

    def remove(self, group: str, plural: str) -> None:
        """Serve a kind no longer that was defined at run time: its cache goes, and its watches end."""
        for place in [place for place in self._custom if (place[0], place[2]) == (group, plural)]:
            task = self._following.pop(self._custom.pop(place).store, None)
            if task is not None:
                task.cancel()
        self.generation += 1

    def custom(self, group: str = "", plural: str = "") -> list[Served]:
        """What was defined at run time: all of it, or one resource in each version."""
        if not group:
            return list(self._custom.values())
        found = [place for place in self._custom if (place[0], place[2]) == (group, plural)]
        return [served for place in found if (served := self._find_custom(place)) is not None]

    def of_class(self, cls: type[Message]) -> Served:
        """The resource whose objects are messages of the class. Raises KeyError."""
        served = self._by_class.get(cls)
        if served is None:
            for candidate in self._served.values():
                if candidate.info.message is cls:
                    served = self._by_class[cls] = candidate
                    break
            else:
                raise KeyError(cls.DESCRIPTOR.full_name)
        return served

    def count(self, info: RequestInfo) -> int:
        """How many objects a list of this scope reads, 0 for what is not stored."""
        served = self.find(info.api_group, info.api_version, info.resource)
        return 0 if served is None else served.store.cacher.count(info.namespace if served.info.namespaced else "")

    def knows(self, info: RequestInfo) -> bool:
        """Whether a request is for something that is served; asking starts nothing."""
        place = (info.api_group, info.api_version, info.resource)
        served = self._served.get(place) or self._custom.get(place)
        return served is not None and (not info.subresource or info.subresource in served.info.subresources)

    def caches(self) -> Iterator[tuple[str, str, str, Cacher]]:
        """Group, version and plural of each stored resource with its cache; of custom ones those in use."""
        for store in [*self.stores(), *self._following]:
            yield store.resource.group, store.resource.version, store.resource.plural, store.cacher

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def stores(self) -> list[ResourceStore]:
        """Each store once."""
        return [served.store for served in self._served.values() if served.converter is None]

    def start(self, group: asyncio.TaskGroup) -> None:
        """Fill the caches and keep them true, as tasks of the group."""
        self._group = group
        for store in self.stores():
            start_loop(group, _follow(store), f"cache of {store.resource.plural}.{store.resource.group}")

    async def wait_ready(self) -> None:
        """Return when every cache is filled and every strategy has rebuilt what it derives."""
        for store in self.stores():
            await store.cacher.ready()
        for store in self.stores():
            await store.strategy.start()


async def _follow(store: ResourceStore) -> None:
    """Keep one cache true until cancelled; a store that was closed ends nothing but its reads."""
    await store.cacher.run()
    await asyncio.get_running_loop().create_future()


def object_format(
    info: ResourceInfo,
    read_fields: Callable[[Any], Mapping[str, str]] | None = None,
    dumps: Callable[[Any], bytes] = json_codec.dumps,
) -> ObjectFormat:
    """How the resource's objects are read and written."""
    return ObjectFormat(
        info.message,
        api_version=info.api_version,
        kind=info.kind,
        dumps=dumps,
        field_names=info.selectable_fields,
        read_fields=read_fields,
    )
