"""ObjectAccess over the resource table: the server's own hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from tiphys_apimachinery.errors import NotFound, ServiceUnavailable
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Selector
from tiphys_apiserver.authentication.interface import SERVER_USER
from tiphys_apiserver.registry.deletion import DeleteRequest
from tiphys_apiserver.registry.strategy import BACKGROUND, WriteContext
from tiphys_apiserver.registry.table import ResourceTable, Served
from tiphys_apiserver.storage.list_query import ListQuery
from tiphys_apiserver.storage.selection import Selection
from tiphys_component.clock import Clock

M = TypeVar("M", bound=Message)
P = TypeVar("P")


class RegistryAccess:
    """Implements ObjectAccess; see there. The table is given after construction, as strategies need access first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._table: ResourceTable | None = None

    def attach(self, table: ResourceTable) -> None:
        """Tell it the resources, once."""
        self._table = table

    def _of(self, cls: type[Message]) -> Served:
        if self._table is None:
            raise ServiceUnavailable("the server has no resources yet")
        return self._table.of_class(cls)

    def get_nowait(self, cls: type[M], name: str, namespace: str = "") -> M | None:
        """The cached object, or None."""
        served = self._of(cls)
        found = served.store.cacher.get_nowait(namespace, name)
        return None if found is None else served.view(found).message()

    async def get(self, cls: type[M], name: str, namespace: str = "") -> M:
        """The cached object, after the cache is filled. Raises NotFound."""
        served = self._of(cls)
        if not served.store.cacher.is_ready:
            await served.store.cacher.ready()
        found = self.get_nowait(cls, name, namespace)
        if found is None:
            # The object may be younger than the cache: ask the store once.
            fresh = await served.store.cacher.get(namespace, name)
            if fresh is None:
                raise NotFound.of(served.info.plural, name, group=served.info.group)
            found = served.view(fresh).message()
        return found

    async def list(
        self, cls: type[M], namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> list[M]:
        """The cached objects in key order."""
        served = self._of(cls)
        if not served.store.cacher.is_ready:
            await served.store.cacher.ready()
        selection = Selection(namespace)
        if label_selector or field_selector:
            selection = Selection(namespace, Selector.parse(label_selector), FieldSelector.parse(field_selector))
        page = await served.store.cacher.list(selection, ListQuery(resource_version="0"))
        return [served.view(cached).message() for cached in page.items]

    async def project(
        self, cls: type[M], make: Callable[[M], P], memory: dict[str, tuple[int, P]], *, field_selector: str = ""
    ) -> Sequence[P]:
        """What make makes of each cached object, made anew only where it changed."""
        served = self._of(cls)
        await served.store.cacher.ready()
        selection = Selection("", Selector.everything(), FieldSelector.parse(field_selector))
        page = await served.store.cacher.list(selection, ListQuery(resource_version="0"))
        current: dict[str, tuple[int, P]] = {}
        for cached in page.items:
            kept = memory.get(cached.key)
            if kept is None or kept[0] != cached.rv:
                kept = (cached.rv, make(served.view(cached).message()))
            current[cached.key] = kept
        memory.clear()
        memory.update(current)
        return [made for _, made in current.values()]

    def version(self, cls: type[Message]) -> int:
        """A number that grows with every change of the kind's cache."""
        if self._table is None:
            raise ServiceUnavailable("the server has no resources yet")
        return self._table.of_class(cls).store.cacher.version

    async def create(self, obj: M) -> M:
        """Store a new object. Raises AlreadyExists, Invalid."""
        served = self._of(type(obj))
        copy: Any = type(obj)()
        copy.CopyFrom(obj)
        ctx = self._context(copy.metadata.namespace)
        return served.from_storage(await served.store.create(ctx, served.to_storage(copy)))  # type: ignore[no-any-return]

    async def modify(
        self, cls: type[M], name: str, namespace: str, change: Callable[[M], None], *, subresource: str = ""
    ) -> M:
        """Read, change in place, write; again on conflict."""
        served = self._of(cls)

        async def changed(stored: Any) -> Any:
            obj = served.from_storage(stored)
            change(obj)
            return served.to_storage(obj)

        ctx = self._context(namespace)
        ctx.subresource = subresource
        stored, _ = await served.store.update(ctx, name, changed)
        return served.from_storage(stored)  # type: ignore[no-any-return]

    async def delete(self, cls: type[Message], name: str, namespace: str = "") -> None:
        """Delete; deleting what is gone succeeds."""
        served = self._of(cls)
        try:
            await served.store.delete(self._context(namespace), name, DeleteRequest(propagation=BACKGROUND))
        except NotFound:
            return

    def _context(self, namespace: str) -> WriteContext:
        return WriteContext(now=self._clock.now(), user=SERVER_USER, namespace=namespace)
