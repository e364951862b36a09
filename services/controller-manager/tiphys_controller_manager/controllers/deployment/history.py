"""Which old ReplicaSets are kept for going back, and which have had their time.

Source: kubernetes pkg/controller/deployment/sync.go, cleanupDeployment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_controller_manager.controllers.deployment.revision import age_order, revision_of

_KEEP_ALL: Final = 2**31 - 1


def superfluous(deployment: apps_pb2.Deployment, olds: Sequence[apps_pb2.ReplicaSet]) -> list[apps_pb2.ReplicaSet]:
    """The old ReplicaSets beyond revisionHistoryLimit, oldest first, that have no pods and want none."""
    spec = deployment.spec
    if not spec.HasField("revisionHistoryLimit") or spec.revisionHistoryLimit == _KEEP_ALL:
        return []
    alive = [old for old in olds if not is_being_deleted(old)]
    too_many = len(alive) - spec.revisionHistoryLimit
    if too_many <= 0:
        return []
    oldest = sorted(alive, key=lambda old: (revision_of(old), *age_order(old)))[:too_many]
    return [old for old in oldest if _is_empty(old)]


def _is_empty(old: apps_pb2.ReplicaSet) -> bool:
    """What its controller has not seen yet may still make pods."""
    seen = old.status.observedGeneration >= old.metadata.generation
    return seen and old.spec.replicas == 0 and old.status.replicas == 0
