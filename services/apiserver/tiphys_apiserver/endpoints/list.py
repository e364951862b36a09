"""list: the objects that selectors choose, in one piece or in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.fields import FieldSelector, FieldSelectorError
from tiphys_apimachinery.labels import Selector, SelectorError
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.cacher import CachedList
from tiphys_apiserver.storage.list_query import ListQuery
from tiphys_apiserver.storage.objects import CachedObject
from tiphys_apiserver.storage.selection import PLACE_FIELDS, Matcher, Selection

# Objects of one question to who converts, where a page is not longer.
_AT_ONCE = 500


async def list_objects(served: Served, call: Call, query: ListQuery) -> CachedList:
    """A page of objects. Raises BadRequest, Invalid, Expired, Timeout."""
    selection = selection_of(served, call)
    cached, rest = divided(served, selection)
    page = await served.store.cacher.list(cached, query)
    if rest is not None:
        return await _chosen(served, page, query, outline=cached, rest=rest)
    if served.converter is None and served.remote is None:
        return page
    return replace(page, items=await served.viewed(page.items))


async def _chosen(
    served: Served, page: CachedList, query: ListQuery, *, outline: Selection, rest: Matcher
) -> CachedList:
    """Pages of what may be chosen are converted, from this one on, until there is enough of what is."""
    cacher, limit = served.store.cacher, query.limit
    found = chosen(await served.viewed(page.items), rest)
    while page.continue_token and len(found) <= limit:
        more = ListQuery(limit=max(limit, _AT_ONCE), continue_token=page.continue_token)
        page = await cacher.list(outline, more)
        found += chosen(await served.viewed(page.items), rest)
    return cacher.page(found, page.revision, rest, limit=limit)


def chosen(items: Sequence[CachedObject], matcher: Matcher) -> list[CachedObject]:
    """Those that the matcher takes."""
    matches = matcher.matches
    return list(items) if matches is None else [cached for cached in items if matches(cached)]


def divided(served: Served, selection: Selection) -> tuple[Selection, Matcher | None]:
    """What the cache can choose, and what is left to ask of objects in the served version, None where nothing is.

    An object that somebody else converts may have other labels and fields in each version.
    """
    outline = selection.outline()
    if served.remote is None or served.remote.is_home_of_all or outline == selection:
        return selection, None
    return outline, Matcher(selection, served.format)


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
            if term.field not in served.fields and term.field not in PLACE_FIELDS:
                raise BadRequest(f"field label not supported: {term.field}")
    if fields and served.converter is not None:
        names = served.converter.field_names
        fields = fields.transform(lambda name, value: (names.get(name, name), value))
    if fields and served.info.plural == "pods":
        # The old name of the field, which some clients still use.
        fields = fields.transform(lambda name, value: ("spec.nodeName" if name == "spec.host" else name, value))
    return Selection(namespace, labels, fields)
