"""Replica sets."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apiserver.registry.apps.pod_owner import PodOwnerStrategy


class ReplicaSetStrategy(PodOwnerStrategy):
    """The rules of replica sets."""

    kind_in_words = "replica set"

    def apply_defaults(self, obj: Message) -> None:
        """A set without labels of its own has those of its pods."""
        super().apply_defaults(obj)
        replica_set: Any = obj
        if not replica_set.metadata.labels:
            for key, value in replica_set.spec.template.metadata.labels.items():
                replica_set.metadata.labels[key] = value
