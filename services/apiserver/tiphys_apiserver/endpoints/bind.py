"""binding: puts a pod on a node, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tiphys.api.core.v1 import pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import APIError, BadRequest, Conflict, FieldError, Invalid
from tiphys_apimachinery.meta import set_condition, to_time
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.endpoints.batch import each
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call


def success(code: int = 201) -> meta_pb2.Status:
    """The Status that answers a create without an object of its own."""
    status = meta_pb2.Status(status="Success", code=code)
    status.metadata.SetInParent()
    return status


async def bind(hall: Hall, served: Served, call: Call, binding: Any) -> meta_pb2.Status:
    """Set the pod's node. Raises NotFound, Conflict when it has one or is being deleted, Invalid, Forbidden."""
    name = call.info.name or binding.metadata.name
    if binding.metadata.name and binding.metadata.name != name:
        raise BadRequest(
            f"the name of the object ({binding.metadata.name}) does not match the name on the URL ({name})"
        )
    _check_target(binding, name)
    attributes = AdmissionAttributes(
        Operation.CREATE, served.info, "binding", call.info.namespace, name, binding, None,
        call.user, call.dry_run, None, call.warn, call.waited,
    )  # fmt: skip
    await hall.admission.admit(attributes)
    await hall.admission.validate(attributes)
    ctx = hall.write_context(call)
    ctx.trusted = True

    async def change(pod: Any) -> Any:
        _check_pod(pod, binding)
        pod.spec.nodeName = binding.target.name
        for key, value in binding.metadata.annotations.items():
            pod.metadata.annotations[key] = value
        condition = pod_pb2.PodCondition(type="PodScheduled", status="True")
        condition.lastTransitionTime.CopyFrom(to_time(ctx.now))
        set_condition(pod.status.conditions, condition)
        return pod

    await served.store.update(ctx, name, change)
    return success()


def _check_target(binding: Any, name: str) -> None:
    errors = []
    if binding.target.kind and binding.target.kind != "Node":
        errors.append(FieldError.not_supported("target.kind", binding.target.kind, ("Node", "<empty>")))
    if not binding.target.name:
        errors.append(FieldError.required("target.name"))
    if errors:
        raise Invalid.of("Binding", name, errors)


def _check_pod(pod: Any, binding: Any) -> None:
    """Raise Conflict unless the pod waits for a node."""
    name = pod.metadata.name
    wanted = binding.metadata.uid
    if wanted and wanted != pod.metadata.uid:
        why = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {pod.metadata.uid}"
    elif pod.metadata.HasField("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
    elif pod.spec.nodeName:
        why = f'pod {name} is already assigned to node "{pod.spec.nodeName}"'
    elif pod.spec.schedulingGates:
        why = f"pod {name} has non-empty .spec.schedulingGates"
    else:
        return
    raise Conflict.of("pods/binding", name, why=why)


async def bind_batch(hall: Hall, served: Served, call: Call, bindings: Sequence[Any]) -> list[meta_pb2.Status]:
    """Bind each by itself; one Status a binding, in order."""

    async def one(binding: Any) -> meta_pb2.Status:
        info = replace(call.info, namespace=binding.metadata.namespace, name=binding.metadata.name)
        return await bind(hall, served, replace(call, info=info), binding)

    results = await each(bindings, one)
    return [result.to_status() if isinstance(result, APIError) else result for result in results]
