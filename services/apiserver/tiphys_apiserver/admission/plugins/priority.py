"""Turns a pod's priority class into its priority and preemption policy."""

from __future__ import annotations

from typing import Any

from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass
from tiphys_apimachinery.errors import NotFound
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.registry.objects import ObjectAccess

PREEMPT_LOWER = "PreemptLowerPriority"


class Priority:
    """Fills priority, preemptionPolicy, and priorityClassName where a class is the default for all."""

    name = "Priority"

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects
        # The class for pods that name none, and the version of the classes' cache that it was found in.
        self._default: Any = None
        self._seen = -1

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New pods."""
        return (
            attributes.operation is Operation.CREATE
            and attributes.resource.plural == "pods"
            and not attributes.resource.group
            and not attributes.subresource
        )

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden for an unknown class and for values that contradict the class."""
        pod: Any = attributes.object
        spec = pod.spec
        found: Any = None
        if spec.priorityClassName:
            try:
                found = await self._objects.get(PriorityClass, spec.priorityClassName)
            except NotFound:
                why = f"no PriorityClass with name {spec.priorityClassName} was found"
                raise refuse(attributes, why) from None
        else:
            found = await self._default_class()
            if found is not None:
                spec.priorityClassName = found.metadata.name
        priority = found.value if found is not None else 0
        policy = PREEMPT_LOWER
        if found is not None and found.HasField("preemptionPolicy"):
            policy = found.preemptionPolicy
        if spec.HasField("priority") and spec.priority != priority:
            raise refuse(
                attributes,
                f"the integer value of priority ({spec.priority}) must not be provided in pod spec; priority"
                f" admission controller computed {priority} from the given PriorityClass name",
            )
        if spec.HasField("preemptionPolicy") and spec.preemptionPolicy != policy:
            raise refuse(
                attributes,
                f"the string value of PreemptionPolicy ({spec.preemptionPolicy}) must not be provided in pod spec;"
                f" priority admission controller computed {policy} from the given PriorityClass name",
            )
        spec.priority = priority
        spec.preemptionPolicy = policy

    async def _default_class(self) -> Any:
        """Looked for anew only when the classes have changed: every pod without a class asks."""
        version = self._objects.version(PriorityClass)
        if not version or version != self._seen:
            self._default = default_class(await self._objects.list(PriorityClass))
            self._seen = version
        return self._default


def default_class(classes: list[Any]) -> Any:
    """The class for pods that name none: the lowest of those marked globalDefault; None where there is none."""
    marked = [item for item in classes if item.globalDefault]
    return min(marked, key=lambda item: item.value, default=None)
