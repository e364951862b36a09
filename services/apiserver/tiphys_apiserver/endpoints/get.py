"""get: one object from the cache."""

from __future__ import annotations

from tiphys_apimachinery.errors import NotFound
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.objects import CachedObject


async def get(served: Served, call: Call, resource_version: str = "") -> CachedObject:
    """The object, as fresh as resource_version asks. Raises NotFound."""
    info = call.info
    namespace = info.namespace if served.info.namespaced else ""
    found = None
    # Without its namespace the rest of a key could be passed off as a name.
    if namespace or not served.info.namespaced:
        found = await served.store.cacher.get(namespace, info.name, resource_version=resource_version)
    if found is None:
        raise NotFound.of(info.resource, info.name, group=info.api_group)
    if served.remote is not None:
        return (await served.remote.view([found]))[0]
    return served.view(found)
