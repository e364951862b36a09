"""eviction: deletes a pod if the disruption budgets that cover it allow one more to go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiphys.api.meta.v1 import meta_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery.errors import (
    BadRequest,
    InternalError,
    NotFound,
    StatusCause,
    StatusDetails,
    TooManyRequests,
)
from tiphys_apimachinery.labels import from_label_selector
from tiphys_apimachinery.meta import is_condition_true, to_time
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.endpoints.bind import success
from tiphys_apiserver.endpoints.delete import delete
from tiphys_apiserver.endpoints.get import get
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call

# Pods that budgets do not protect: they no longer run, or do not run yet.
_UNPROTECTED = frozenset({"Succeeded", "Failed", "Pending"})
# More disrupted pods than that are not remembered in one budget: its controller is behind.
_MAX_DISRUPTED = 2000


async def evict(hall: Hall, served: Served, call: Call, eviction: Any, *, objects: ObjectAccess) -> meta_pb2.Status:
    """Delete the pod. Raises TooManyRequests when a budget forbids it for now, NotFound, BadRequest."""
    name = call.info.name
    if eviction.metadata.name and eviction.metadata.name != name:
        raise BadRequest(f"name in URL does not match name in Eviction object: {name} != {eviction.metadata.name}")
    pod: Any = (await get(served, call)).message()
    attributes = AdmissionAttributes(
        Operation.CREATE, served.info, "eviction", call.info.namespace, name, eviction, None,
        call.user, call.dry_run, None, call.warn,
    )  # fmt: skip
    await hall.admission.admit(attributes)
    await hall.admission.validate(attributes)
    if pod.status.phase not in _UNPROTECTED and not pod.metadata.HasField("deletionTimestamp"):
        await _spend_budget(hall, call, pod, objects)
    options = meta_pb2.DeleteOptions()
    if eviction.HasField("deleteOptions"):
        options.CopyFrom(eviction.deleteOptions)
    if not options.preconditions.HasField("uid"):
        options.preconditions.uid = pod.metadata.uid
    gone = replace(call, info=replace(call.info, verb="delete", subresource=""))
    await delete(hall, served, gone, options)
    return success()


async def _spend_budget(hall: Hall, call: Call, pod: Any, objects: ObjectAccess) -> None:
    budgets = [
        budget
        for budget in await objects.list(policy_pb2.PodDisruptionBudget, pod.metadata.namespace)
        if from_label_selector(budget.spec.selector).matches(pod.metadata.labels)
    ]
    if not budgets:
        return
    if len(budgets) > 1:
        raise InternalError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    budget: Any = budgets[0]
    if not is_condition_true(pod.status.conditions, "Ready") and _frees_unhealthy(budget):
        return

    def spend(current: Any) -> None:
        _check_budget(current)
        if not call.dry_run:
            current.status.disruptionsAllowed -= 1
            current.status.disruptedPods[pod.metadata.name].CopyFrom(to_time(hall.clock.now()))

    try:
        await objects.modify(
            policy_pb2.PodDisruptionBudget,
            budget.metadata.name,
            budget.metadata.namespace,
            spend,
            subresource="status",
        )
    except NotFound:
        # The budget went away meanwhile, and with it what it forbade.
        return


def _frees_unhealthy(budget: Any) -> bool:
    """Whether a pod that is not ready may always go. Source: PodDisruptionBudget, unhealthyPodEvictionPolicy."""
    if budget.spec.unhealthyPodEvictionPolicy == "AlwaysAllow":
        return True
    status = budget.status
    return bool(status.currentHealthy >= status.desiredHealthy and status.desiredHealthy > 0)


def _check_budget(budget: Any) -> None:
    name = budget.metadata.name
    if budget.status.observedGeneration < budget.metadata.generation:
        why, retry_after_s = f"The disruption budget {name} is still being processed by the server.", 10
    elif len(budget.status.disruptedPods) > _MAX_DISRUPTED:
        why, retry_after_s = f"The disruption budget {name} has too many pods that are being disrupted.", 10
    elif budget.status.disruptionsAllowed <= 0:
        status = budget.status
        why = (
            f"The disruption budget {name} needs {status.desiredHealthy} healthy pods"
            f" and has {status.currentHealthy} currently"
        )
        retry_after_s = 0
    else:
        return
    details = StatusDetails(causes=(StatusCause("DisruptionBudget", why),), retry_after_s=retry_after_s)
    raise TooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", details=details)
