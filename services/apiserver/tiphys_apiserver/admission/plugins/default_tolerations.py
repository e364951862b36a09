"""Lets every pod outlast five minutes of a node that is not ready or not reachable."""

from __future__ import annotations

from typing import Any

from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
DEFAULT_SECONDS = 300


class DefaultTolerationSeconds:
    """Adds NoExecute tolerations for both taints, where the pod says nothing about them."""

    name = "DefaultTolerationSeconds"

    def __init__(self, not_ready_s: int = DEFAULT_SECONDS, unreachable_s: int = DEFAULT_SECONDS) -> None:
        self._seconds = {NOT_READY: not_ready_s, UNREACHABLE: unreachable_s}

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New and changed pods."""
        return (
            attributes.operation in (Operation.CREATE, Operation.UPDATE)
            and attributes.resource.plural == "pods"
            and not attributes.resource.group
            and not attributes.subresource
        )

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Add what is missing."""
        pod: Any = attributes.object
        for key, seconds in self._seconds.items():
            if not any(_speaks_of(toleration, key) for toleration in pod.spec.tolerations):
                pod.spec.tolerations.add(key=key, operator="Exists", effect="NoExecute", tolerationSeconds=seconds)


def _speaks_of(toleration: Any, key: str) -> bool:
    return toleration.key in (key, "") and toleration.effect in ("NoExecute", "")
