"""list: the objects that selectors choose, in one piece or in pages."""

from __future__ import annotations

from dataclasses import replace

from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.fields import FieldSelector, FieldSelectorError
from tiphys_apimachinery.labels import Selector, SelectorError
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.cacher import CachedList
from tiphys_apiserver.storage.list_query import ListQuery
from tiphys_apiserver.storage.selection import Selection

# Fields that every kind can be selected by.
_OF_ALL = frozenset({"metadata.name", "metadata.namespace"})


async def list_objects(served: Served, call: Call, query: ListQuery) -> CachedList:
    """A page of objects. Raises BadRequest, Invalid, Expired, Timeout."""
    page = await served.store.cacher.list(selection_of(served, call), query)
    if served.converter is None and served.remote is None:
        return page
    return replace(page, items=await served.viewed(page.items))


def selection_of(served: Served, call: Call) -> Selection:
    """What the call chooses. Raises BadRequest where a selector can't be read."""
    namespace = call.info.namespace if served.info.namespaced else ""
    if not call.label_selector and not call.field_selector:
        return Selection(namespace)
    try:
        labels = Selector.parse(call.label_selector)
    except SelectorError as err:
        raise BadRequest(f"unable to parse requirement: {err}") from err
    try:
        fields = FieldSelector.parse(call.field_selector)
    except FieldSelectorError as err:
        raise BadRequest(str(err)) from err
    if served.fields is not None:
        for term in fields.requirements:
            if term.field not in served.fields and term.field not in _OF_ALL:
                raise BadRequest(f"field label not supported: {term.field}")
    if fields and served.converter is not None:
        names = served.converter.field_names
        fields = fields.transform(lambda name, value: (names.get(name, name), value))
    if fields and served.info.plural == "pods":
        # The old name of the field, which some clients still use.
        fields = fields.transform(lambda name, value: ("spec.nodeName" if name == "spec.host" else name, value))
    return Selection(namespace, labels, fields)
