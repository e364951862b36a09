"""Pods: their defaults, what may change, and how they end."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys.api.core.v1.pod_pb2 import PodCondition
from tiphys_apimachinery import defaults
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.meta import set_condition, to_time
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.registry.core.approved_specs import ApprovedSpecs, spec_digest
from tiphys_apiserver.registry.core.device_claims import claim_status_errors
from tiphys_apiserver.registry.core.known_specs import KnownSpecs
from tiphys_apiserver.registry.core.pod_defaults import default_pod, default_pod_spec
from tiphys_apiserver.registry.core.pod_resize import take_resources, validate_resize
from tiphys_apiserver.registry.core.pod_spec_validation import validate_pod_spec, validate_template
from tiphys_apiserver.registry.core.pod_update import validate_ephemeral_update, validate_pod_update
from tiphys_apiserver.registry.core.qos import qos_class
from tiphys_apiserver.registry.core.spec_texts import SpecTexts
from tiphys_apiserver.registry.strategy import Environment, Strategy, WriteContext, copy_field

_DEFAULT_GRACE_S = 30
_ENDED = ("Succeeded", "Failed")


class PodStrategy(Strategy):
    """The rules of pods."""

    def __init__(self, resource: ResourceInfo, environment: Environment) -> None:
        super().__init__(resource, environment)
        self._approved = ApprovedSpecs()
        self._texts = SpecTexts()
        self.known_specs = KnownSpecs(resource.message, self.apply_defaults)

    def apply_defaults(self, obj: Message) -> None:
        """The schema's defaults, then those that depend on other fields."""
        super().apply_defaults(obj)
        default_pod(obj)

    def apply_status_defaults(self, obj: Any) -> None:
        """The status alone: kubelets write it often, and the spec is as it was stored."""
        defaults.apply_defaults(obj.status)

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """A new pod is pending, in the quality class that its resources make."""
        pod: Any = obj
        pod.ClearField("status")
        pod.status.phase = "Pending"
        pod.status.qosClass = qos_class(pod)
        if pod.spec.schedulingGates:
            condition = PodCondition(
                type="PodScheduled",
                status="False",
                reason="SchedulingGated",
                message="Scheduling is blocked due to non-empty scheduling gates",
            )
            condition.lastTransitionTime.CopyFrom(to_time(ctx.now))
            set_condition(pod.status.conditions, condition)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Every fault of a new pod. All rules are about its spec, so one that was right before is right again."""
        pod: Any = obj
        digest = spec_digest(pod.spec)
        if digest in self._approved:
            return []
        errors = super().validate(ctx, obj) + validate_pod_spec(pod.spec, "spec")
        if pod.spec.ephemeralContainers:
            errors.append(FieldError.forbidden("spec.ephemeralContainers", "cannot be set on create"))
        if not errors:
            self._approved.add(digest)
        return errors

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Little of a pod may change; ephemeral containers only by their subresource."""
        return super().validate_update(ctx, new, old) + validate_pod_update(new, old)

    def prepare_for_status_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Owners and the quality class are not a kubelet's to change."""
        super().prepare_for_status_update(ctx, new, old)
        copy_field(new.metadata, old.metadata, "ownerReferences")
        new.status.qosClass = old.status.qosClass or qos_class(old)

    def validate_status_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Beside the schema's rules those of claims that were made for the pod."""
        errors = super().validate_status_update(ctx, new, old)
        return errors + list(claim_status_errors(new)) if new.status.resourceClaimStatuses else errors

    def prepare_for_subresource_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """ephemeralcontainers changes nothing but those; resize nothing but resources."""
        if ctx.subresource == "ephemeralcontainers":
            wanted = list(new.spec.ephemeralContainers)
            new.CopyFrom(_with_metadata(old, new))
            del new.spec.ephemeralContainers[:]
            new.spec.ephemeralContainers.extend(wanted)
        elif ctx.subresource == "resize":
            wanted = _copy(new)
            new.CopyFrom(_with_metadata(old, wanted))
            for name in ("labels", "annotations", "finalizers", "ownerReferences"):
                copy_field(new.metadata, old.metadata, name)
            take_resources(wanted, new)

    def validate_subresource_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Faults of new debugging containers, or of new resources."""
        errors = validate_pod_spec(new.spec, "spec")
        if ctx.subresource == "ephemeralcontainers":
            return errors + validate_ephemeral_update(new, old)
        return errors + validate_resize(new, old)

    def dumps(self, obj: Message) -> bytes:
        """With the texts of specs remembered."""
        return self._texts.dumps(obj)

    def grace_period_s(self, ctx: WriteContext, obj: Any, requested: int | None) -> int:
        """The caller's period or the pod's own; none for a pod that no node has taken on or that has ended."""
        if not obj.spec.nodeName or obj.status.phase in _ENDED:
            return 0
        period_s = requested
        if period_s is None:
            own = obj.spec.terminationGracePeriodSeconds
            period_s = own if obj.spec.HasField("terminationGracePeriodSeconds") else _DEFAULT_GRACE_S
        # Negative was once taken for "at once"; upstream makes the shortest graceful period of it.
        return 1 if period_s < 0 else period_s


def _with_metadata(old: Any, new: Any) -> Any:
    """The old object with the new one's metadata, as a copy."""
    copy = _copy(old)
    copy.metadata.CopyFrom(new.metadata)
    return copy


def _copy(pod: Any) -> Any:
    copy = type(pod)()
    copy.CopyFrom(pod)
    return copy


class PodTemplateStrategy(Strategy):
    """Templates of pods that are objects of their own."""

    def apply_defaults(self, obj: Message) -> None:
        """As in other templates."""
        super().apply_defaults(obj)
        template: Any = obj
        default_pod_spec(template.template.spec)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the template."""
        template: Any = obj
        return super().validate(ctx, obj) + validate_template(template.template, "template")

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + validate_template(new.template, "template")
