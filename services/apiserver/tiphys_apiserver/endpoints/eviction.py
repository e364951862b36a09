"""eviction: deletes a pod if the disruption budgets that cover it allow one more to go.

Source: kubernetes pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from tiphys.api.core.v1 import pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    InternalError,
    NotFound,
    StatusCause,
    StatusDetails,
    TooManyRequests,
)
from tiphys_apimachinery.labels import from_label_selector
from tiphys_apimachinery.meta import find_condition, is_being_deleted, is_condition_true, set_condition, to_time
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.endpoints.bind import success
from tiphys_apiserver.endpoints.delete import delete
from tiphys_apiserver.endpoints.get import get
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.registry.deletion import check_preconditions, read_options
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call

# Pods that budgets do not protect: they no longer run, or do not run yet.
_UNPROTECTED: Final = frozenset({"Succeeded", "Failed", "Pending"})
# More disrupted pods than that are not remembered in one budget: its controller is behind.
_MAX_DISRUPTED: Final = 2000
# How often a pod is looked at again that changed meanwhile.
_ATTEMPTS: Final = 8
_RETRY_AFTER_S: Final = 10
_REFUSED: Final = "Cannot evict pod as it would violate the pod's disruption budget."
_ALLOWED_CONDITION: Final = "DisruptionAllowed"


async def evict(hall: Hall, served: Served, call: Call, eviction: Any, *, objects: ObjectAccess) -> meta_pb2.Status:
    """Delete the pod, and leave in its status why.

    Raises TooManyRequests when a budget forbids it for now, Conflict when a precondition fails, NotFound, BadRequest,
    Forbidden.
    """
    name = call.info.name
    if eviction.metadata.name and eviction.metadata.name != name:
        raise BadRequest(f"name in URL does not match name in Eviction object: {name} != {eviction.metadata.name}")
    attributes = AdmissionAttributes(
        Operation.CREATE, served.info, "eviction", call.info.namespace, name, eviction, None,
        call.user, call.dry_run, None, call.warn, call.waited,
    )  # fmt: skip
    await hall.admission.admit(attributes)
    await hall.admission.validate(attributes)
    if read_options(eviction.deleteOptions).dry_run:
        call.dry_run = True
    evictor = _Evictor(hall, served, call, objects, eviction.deleteOptions)
    for _ in range(_ATTEMPTS):
        pod: Any = (await get(served, call)).message()
        if await evictor.try_once(pod):
            return success()
    raise TooManyRequests.of(f"pod {name} changes too often to be evicted now", _RETRY_AFTER_S)


@dataclass(frozen=True, slots=True)
class _Evictor:
    """One eviction; options are the caller's own."""

    hall: Hall
    served: Served
    call: Call
    objects: ObjectAccess
    options: meta_pb2.DeleteOptions

    async def try_once(self, pod: Any) -> bool:
        """Evict this version of the pod; False if it must be looked at again, as it is another by now."""
        # Before anything is spent: a budget must not pay for an eviction that cannot be.
        check_preconditions(read_options(self.options), pod, "pods", "")
        if pod.status.phase in _UNPROTECTED or is_being_deleted(pod):
            return await self._delete_unchanged(pod)
        budget = await self._budget_of(pod)
        if budget is None:
            await self._delete(pod, self._options_for(pod))
            return True
        if not is_condition_true(pod.status.conditions, "Ready") and _frees_unhealthy(budget):
            return await self._delete_unchanged(pod)
        await self._spend(budget, pod)
        await self._delete(pod, self._options_for(pod))
        return True

    async def _budget_of(self, pod: Any) -> Any | None:
        """The budget that covers the pod. Raises InternalError where there are several."""
        budgets = [
            budget
            for budget in await self.objects.list(policy_pb2.PodDisruptionBudget, pod.metadata.namespace)
            if _covers(budget, pod)
        ]
        if len(budgets) > 1:
            raise InternalError(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        return budgets[0] if budgets else None

    async def _spend(self, budget: Any, pod: Any) -> None:
        """Take one disruption from the budget; of two evictions at once the second sees what the first left."""
        now = to_time(self.hall.clock.now())

        def spend(current: Any) -> None:
            _check_budget(current)
            if self.call.dry_run:
                return
            current.status.disruptionsAllowed -= 1
            current.status.disruptedPods[pod.metadata.name].CopyFrom(now)
            if current.status.disruptionsAllowed == 0:
                _say_insufficient(current, now)

        try:
            await self.objects.modify(
                policy_pb2.PodDisruptionBudget,
                budget.metadata.name,
                budget.metadata.namespace,
                spend,
                subresource="status",
            )
        except NotFound:
            # The budget went away meanwhile, and with it what it forbade.
            return

    async def _delete_unchanged(self, pod: Any) -> bool:
        """Delete the pod if it is still the version by which it was judged; False if it is not."""
        options = self._options_for(pod)
        has_own = options.preconditions.HasField("resourceVersion")
        options.preconditions.resourceVersion = pod.metadata.resourceVersion
        try:
            await self._delete(pod, options)
        except Conflict:
            if has_own:
                raise
            return False
        return True

    def _options_for(self, pod: Any) -> meta_pb2.DeleteOptions:
        """The caller's options, for this very pod."""
        options = meta_pb2.DeleteOptions()
        options.CopyFrom(self.options)
        if not options.preconditions.HasField("uid"):
            options.preconditions.uid = pod.metadata.uid
        return options

    async def _delete(self, pod: Any, options: meta_pb2.DeleteOptions) -> None:
        if not self.call.dry_run and not is_being_deleted(pod):
            version = await self._mark(options)
            if options.preconditions.HasField("resourceVersion"):
                options.preconditions.resourceVersion = version
        info = replace(self.call.info, verb="delete", subresource="")
        await delete(self.hall, self.served, replace(self.call, info=info), options)

    async def _mark(self, options: meta_pb2.DeleteOptions) -> str:
        """Say in the pod's status why it goes; the pod's version then. Raises Conflict when a precondition fails."""
        ctx = self.hall.write_context(self.call)
        ctx.trusted = True
        request = read_options(options)

        async def change(current: Any) -> Any:
            check_preconditions(request, current, "pods", "")
            condition = pod_pb2.PodCondition(
                type="DisruptionTarget",
                status="True",
                reason="EvictionByEvictionAPI",
                message="Eviction API: evicting",
            )
            condition.lastTransitionTime.CopyFrom(to_time(ctx.now))
            set_condition(current.status.conditions, condition)
            return current

        stored, _ = await self.served.store.update(ctx, self.call.info.name, change)
        return str(stored.metadata.resourceVersion)


def _covers(budget: Any, pod: Any) -> bool:
    """Whether the budget's selector has the pod; without a selector it has none."""
    spec = budget.spec
    selector = from_label_selector(spec.selector if spec.HasField("selector") else None)
    return selector.matches(pod.metadata.labels)


def _frees_unhealthy(budget: Any) -> bool:
    """Whether a pod that is not ready may always go. Source: PodDisruptionBudget, unhealthyPodEvictionPolicy."""
    if budget.spec.unhealthyPodEvictionPolicy == "AlwaysAllow":
        return True
    status = budget.status
    return bool(status.currentHealthy >= status.desiredHealthy and status.desiredHealthy > 0)


def _check_budget(budget: Any) -> None:
    """Raise unless the budget allows one more. Only a state that time alone will change says when to come again."""
    name, status = budget.metadata.name, budget.status
    if status.observedGeneration < budget.metadata.generation:
        raise _refusal(f"The disruption budget {name} is still being processed by the server.", _RETRY_AFTER_S)
    if status.disruptionsAllowed < 0:
        raise Forbidden.of("poddisruptionbudget", name, group="policy", why="pdb disruptions allowed is negative")
    if len(status.disruptedPods) > _MAX_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise Forbidden.of("poddisruptionbudget", name, group="policy", why=why)
    if status.disruptionsAllowed:
        return
    raise _refusal(f"The disruption budget {name} {_why_none(status)}", 0)


def _why_none(status: Any) -> str:
    """Why nothing may go now. What could not be counted comes first: the numbers are of another time then."""
    condition: Any = find_condition(status.conditions, _ALLOWED_CONDITION)
    said = condition.message if condition is not None and condition.status == "False" else ""
    if said and condition.reason == "SyncFailed":
        return f"does not allow evicting pods currently because it failed sync: {said}"
    if status.currentHealthy <= status.desiredHealthy:
        return f"needs {status.desiredHealthy} healthy pods and has {status.currentHealthy} currently"
    because = f" ({condition.reason}): {said}" if said else ""
    return f"does not allow evicting pods currently{because}"


def _refusal(why: str, retry_after_s: int) -> TooManyRequests:
    details = StatusDetails(causes=(StatusCause("DisruptionBudget", why),), retry_after_s=retry_after_s)
    return TooManyRequests(_REFUSED, details=details)


def _say_insufficient(budget: Any, now: meta_pb2.Time) -> None:
    condition = meta_pb2.Condition(
        type=_ALLOWED_CONDITION,
        status="False",
        reason="InsufficientPods",
        observedGeneration=budget.metadata.generation,
    )
    condition.lastTransitionTime.CopyFrom(now)
    set_condition(budget.status.conditions, condition)
