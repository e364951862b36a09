"""Stateful sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.apps.pod_owner import PodOwnerStrategy
from tiphys_apiserver.registry.strategy import WriteContext

_MUTABLE = frozenset(
    {
        "replicas",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
        "ordinals",
    }
)
_TEXT = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy',"
    " 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


class StatefulSetStrategy(PodOwnerStrategy):
    """The rules of stateful sets."""

    kind_in_words = "statefulset"

    def apply_defaults(self, obj: Message) -> None:
        """Pods are replaced one by one from the last; claims stay."""
        super().apply_defaults(obj)
        stateful_set: Any = obj
        spec = stateful_set.spec
        if not spec.podManagementPolicy:
            spec.podManagementPolicy = "OrderedReady"
        if not spec.updateStrategy.type:
            spec.updateStrategy.type = "RollingUpdate"
        if spec.updateStrategy.type == "RollingUpdate" and not spec.updateStrategy.rollingUpdate.HasField("partition"):
            spec.updateStrategy.rollingUpdate.partition = 0
        policy = spec.persistentVolumeClaimRetentionPolicy
        policy.whenDeleted = policy.whenDeleted or "Retain"
        policy.whenScaled = policy.whenScaled or "Retain"
        for claim in spec.volumeClaimTemplates:
            if not claim.spec.HasField("volumeMode"):
                claim.spec.volumeMode = "Filesystem"
            if not claim.status.phase:
                claim.status.phase = "Pending"

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Most of the spec is fixed; one error tells what is not."""
        before = [error for error in super().validate_update(ctx, new, old) if error.detail != "field is immutable"]
        changed = [
            member.name
            for member in new.spec.DESCRIPTOR.fields
            if member.name not in _MUTABLE and getattr(new.spec, member.name) != getattr(old.spec, member.name)
        ]
        return [*before, FieldError.forbidden("spec", _TEXT)] if changed else before

    def whole_template(self, obj: Any) -> Any:
        """Each claim template gives the pods a volume of its name, in place of one that the template may have."""
        names = [claim.metadata.name for claim in obj.spec.volumeClaimTemplates]
        if not names:
            return obj.spec.template
        template = type(obj.spec.template)()
        template.CopyFrom(obj.spec.template)
        there = {volume.name for volume in template.spec.volumes}
        for name in names:
            if name and name not in there:
                template.spec.volumes.add(name=name).volumeSource.persistentVolumeClaim.claimName = name
        return template

    def own_errors(self, obj: Any) -> Iterator[FieldError]:
        """Faults of the update strategy and the ordinals."""
        strategy = obj.spec.updateStrategy
        if strategy.type == "OnDelete" and strategy.HasField("rollingUpdate"):
            yield FieldError.invalid(
                "spec.updateStrategy.rollingUpdate", "", "only allowed for updateStrategy 'RollingUpdate'"
            )
        if obj.spec.ordinals.start < 0:
            yield FieldError.invalid(
                "spec.ordinals.start", obj.spec.ordinals.start, "must be greater than or equal to 0"
            )
