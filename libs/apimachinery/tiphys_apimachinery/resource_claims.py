"""What scheduler, controller and kubelet agree on about resource claims: their marks, and how pods name them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.core.v1.pod_pb2 import Pod

# Source: k8s.io/api resource/v1, types.go.
POD_CLAIM_NAME: Final = "resource.kubernetes.io/pod-claim-name"
ALLOCATED_FINALIZER: Final = "resource.kubernetes.io/delete-protection"
ADMIN_ACCESS_LABEL: Final = "resource.kubernetes.io/admin-access"
MOST_RESERVATIONS: Final = 256
MOST_DEVICES: Final = 32


@dataclass(frozen=True, slots=True)
class PodClaim:
    """A claim of a pod: its name in the pod, and the ResourceClaim, empty while it is still to be made."""

    name: str
    claim: str
    is_generated: bool


def pod_claims(pod: Pod) -> Iterator[PodClaim]:
    """The claims that a pod needs; one for which its status says that none is needed is left out."""
    made = {status.name: status for status in pod.status.resourceClaimStatuses}
    for claim in pod.spec.resourceClaims:
        if claim.resourceClaimName:
            yield PodClaim(claim.name, claim.resourceClaimName, False)
            continue
        status = made.get(claim.name)
        if status is None:
            yield PodClaim(claim.name, "", True)
        elif status.HasField("resourceClaimName"):
            yield PodClaim(claim.name, status.resourceClaimName, True)


def is_reserved_for(claim: Any, uid: str) -> bool:
    """Whether a pod may use the claim."""
    return any(user.uid == uid for user in claim.status.reservedFor)


def qualified(name: str, driver: str) -> tuple[str, str]:
    """Domain and name of an attribute or capacity; without a domain it is the driver's."""
    domain, slash, own = name.partition("/")
    return (domain, own) if slash else (driver, name)


def is_covered(request: str, named: Any) -> bool:
    """Whether a request (or REQUEST/CHOICE) is among those that are named; none named means all."""
    return not named or request in named or request.partition("/")[0] in named
