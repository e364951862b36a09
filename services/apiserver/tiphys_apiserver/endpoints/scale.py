"""scale: how many replicas are wanted and seen, the same for every kind that has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tiphys.api.autoscaling.v1 import autoscaling_pb2
from tiphys_apimachinery.errors import Conflict, FieldError, Invalid
from tiphys_apimachinery.labels import Selector, from_label_selector
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.crd import scale as custom_scale
from tiphys_apiserver.crd.info import CustomInfo
from tiphys_apiserver.endpoints.get import get
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.registry.metadata import match_name
from tiphys_apiserver.registry.strategy import copy_field
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call


def scale_of(obj: Any, info: ResourceInfo, *, may_lack: bool = False) -> Any:
    """The Scale that stands for an object with spec.replicas. A custom object may lack them where they are to be set.

    Raises InternalError where they are needed and not there.
    """
    scale: Any = autoscaling_pb2.Scale()
    for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp"):
        copy_field(scale.metadata, obj.metadata, name)
    if isinstance(info, CustomInfo):
        return custom_scale.read(scale, obj, info, may_lack=may_lack)
    scale.spec.replicas = obj.spec.replicas
    scale.status.replicas = obj.status.replicas
    selector = obj.spec.selector
    is_map = obj.spec.DESCRIPTOR.fields_by_name["selector"].is_repeated
    scale.status.selector = str(Selector.from_set(dict(selector)) if is_map else from_label_selector(selector))
    return scale


async def get_scale(served: Served, call: Call) -> Any:
    """The Scale of the object. Raises NotFound."""
    return scale_of((await get(served, call)).message(), served.info)


async def update_scale(hall: Hall, served: Served, call: Call, change: Callable[[Any], Awaitable[Any]]) -> Any:
    """Set the wanted replicas to what change makes of the Scale; the new Scale.

    Raises NotFound, Conflict, Invalid, Forbidden.
    """

    async def changed(obj: Any) -> Any:
        # The object may be stored in another version than the paths of replicas are of.
        shown = await served.served_form(obj)
        current = scale_of(shown, served.info, may_lack=True)
        wanted = await change(scale_of(shown, served.info, may_lack=True))
        match_name(wanted.metadata, call.info.name, call.info.namespace)
        asked = wanted.metadata.resourceVersion
        if asked and asked != current.metadata.resourceVersion:
            raise Conflict.of(call.info.resource, call.info.name, group=call.info.api_group)
        if wanted.spec.replicas < 0:
            error = FieldError.invalid("spec.replicas", wanted.spec.replicas, "must be greater than or equal to 0")
            raise Invalid.of("Scale", call.info.name, [error], group="autoscaling")
        if isinstance(served.info, CustomInfo):
            custom_scale.write(shown, wanted, served.info)
        else:
            shown.spec.replicas = wanted.spec.replicas
        return await served.stored_form(shown)

    ctx = hall.owned_context(served, call)
    # The strategy sees an ordinary update: replicas are part of the spec.
    ctx.subresource = ""
    admit = hall.admit(served, call, Operation.UPDATE)
    stored, _ = await served.store.update(ctx, call.info.name, changed, admit)
    return scale_of(await served.served_form(stored), served.info)
