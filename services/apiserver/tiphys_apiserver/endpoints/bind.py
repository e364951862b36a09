"""binding: puts a pod on a node, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tiphys.api.core.v1 import binding_pb2, pod_pb2
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


async def bind_batch(hall: Hall, served: Served, call: Call, bindings: Sequence[Any]) -> list[meta_pb2.Status | None]:
    """Bind each by itself; one Status a binding, in order, None for one that is bound.

    What is plain goes the quick road, in one go; all else, and what fails there, goes the long one, each by itself.
    """
    results: list[meta_pb2.Status | None] = [None] * len(bindings)
    bound = await _bind_quickly(hall, served, call, bindings)
    others = [index for index, done in enumerate(bound) if not done]

    async def one(index: int) -> None:
        metadata = bindings[index].metadata
        info = replace(call.info, namespace=metadata.namespace, name=metadata.name)
        await bind(hall, served, replace(call, info=info), bindings[index])

    for index, result in zip(others, await each(others, one), strict=True):
        if isinstance(result, APIError):
            results[index] = result.to_status()
    return results


async def _bind_quickly(hall: Hall, served: Served, call: Call, bindings: Sequence[Any]) -> list[bool]:
    """Bind those pods that are as the cache has them and wait for a node, where admission need not see each."""
    plain = {name: await _is_plain(hall, served, call, name) for name in {item.metadata.namespace for item in bindings}}
    ctx = hall.write_context(call)
    ctx.trusted = True
    condition = pod_pb2.PodCondition(type="PodScheduled", status="True")
    condition.lastTransitionTime.CopyFrom(to_time(ctx.now))

    def change(index: int, pod: Any) -> bool:
        binding = bindings[index]
        spec, wanted, target = pod.spec, binding.metadata, binding.target
        if (
            spec.nodeName
            or spec.schedulingGates
            or not target.name
            or target.kind not in ("", "Node")
            or wanted.uid not in ("", pod.metadata.uid)
            or pod.metadata.HasField("deletionTimestamp")
            or not plain[wanted.namespace]
        ):
            return False
        spec.nodeName = target.name
        if wanted.annotations:
            pod.metadata.annotations.update(wanted.annotations)
        set_condition(pod.status.conditions, condition)
        return True

    return await served.store.set_each(
        ctx, [(item.metadata.namespace, item.metadata.name) for item in bindings], change
    )


async def _is_plain(hall: Hall, served: Served, call: Call, namespace: str) -> bool:
    """Whether admission lets everything pass that the caller binds in the namespace; False where it must see each."""
    attributes = AdmissionAttributes(
        Operation.CREATE, served.info, "binding", namespace, "", binding_pb2.Binding(), None,
        call.user, call.dry_run, None, call.warn, call.waited,
    )  # fmt: skip
    return await hall.admits_alike(attributes)
