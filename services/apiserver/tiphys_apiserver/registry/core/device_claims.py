"""Rules of the claims of devices that a pod names: in its spec, of its containers, and in its status.

Source: pkg/apis/core/validation, validatePodResourceClaims and ValidatePodResourceClaimStatuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.formats import is_dns1123_subdomain

_WAYS = ("resourceClaimName", "resourceClaimTemplateName")


def claim_errors(spec: Any, path: str) -> Iterator[FieldError]:
    """Faults of a pod's claims, and of those that its containers name."""
    names: set[str] = set()
    for index, claim in enumerate(spec.resourceClaims):
        where = f"{path}.resourceClaims[{index}]"
        if claim.name in names:
            yield FieldError.duplicate(f"{where}.name", claim.name)
        names.add(claim.name)
        given = [way for way in _WAYS if claim.HasField(way)]
        if len(given) != 1:
            which = "at most one of" if given else "must specify one of:"
            text = f"{which} `resourceClaimName`, `resourceClaimTemplateName`"
            yield FieldError.invalid(where, claim.name, f"{text} may be specified" if given else text)
        for way in given:
            for why in is_dns1123_subdomain(getattr(claim, way)):
                yield FieldError.invalid(f"{where}.{way}", getattr(claim, way), why)
    for member in ("initContainers", "containers"):
        for index, container in enumerate(getattr(spec, member)):
            yield from _of_container(container.resources.claims, names, f"{path}.{member}[{index}].resources.claims")


def _of_container(claims: Any, known: set[str], path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        if claim.name and claim.name not in known:
            yield FieldError.not_found(f"{path}[{index}]", claim.name)
        # The whole claim and one of its requests can't both be meant.
        whole = f"{claim.name}/{claim.request}" if claim.request else claim.name
        if whole in seen or claim.name in seen or (not claim.request and any(_of(claim.name, one) for one in seen)):
            yield FieldError.duplicate(f"{path}[{index}]", whole)
        seen.add(whole)


def _of(claim: str, name: str) -> bool:
    return name.partition("/")[0] == claim


def claim_status_errors(pod: Any) -> Iterator[FieldError]:
    """Faults of what is said of claims that were made for a pod."""
    known = {claim.name for claim in pod.spec.resourceClaims}
    seen: set[str] = set()
    for index, status in enumerate(pod.status.resourceClaimStatuses):
        where = f"status.resourceClaimStatuses[{index}]"
        if status.name not in known:
            why = "must match the name of an entry in `spec.resourceClaims`"
            yield FieldError.invalid(f"{where}.name", status.name, why)
        if status.name in seen:
            yield FieldError.duplicate(f"{where}.name", status.name)
        seen.add(status.name)
        for why in is_dns1123_subdomain(status.resourceClaimName) if status.HasField("resourceClaimName") else ():
            yield FieldError.invalid(f"{where}.resourceClaimName", status.resourceClaimName, why)
