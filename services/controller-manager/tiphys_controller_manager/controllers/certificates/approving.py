"""Approves client certificates of kubelets, for those who may have them without a person's word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tiphys.api.authorization.v1 import authorization_pb2
from tiphys.api.certificates.v1 import certificates_pb2
from tiphys_apimachinery.meta import to_time
from tiphys_component.log import get_logger
from tiphys_controller_manager.controllers.certificates.requests import (
    APPROVED,
    KUBELET_CLIENT,
    Asked,
    BadRequestPem,
    fault,
    is_pending,
    read_request,
)
from tiphys_controller_manager.frame import Context, Watch, own_key

Request = certificates_pb2.CertificateSigningRequest

# What must be allowed to the asker, and what is said then. The first renews a node's own certificate.
# Source: pkg/controller/certificates/approver/sarapprove.go.
_SELF: Final = ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.")
_OTHER: Final = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")


class CertificateApprover:
    """Keys are names of requests."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._requests = context.informers.of(Request)
        self._log = get_logger("certificatesigningrequest-approving-controller")

    def watches(self) -> Iterable[Watch]:
        """The requests."""
        return (Watch(Request, own_key),)

    def first_keys(self) -> Iterable[str]:
        """None: every request is seen as added."""
        return ()

    async def reconcile(self, key: str) -> None:
        """Approve one request if that is for us to do. Raises errors of the API."""
        request = self._requests.get(key)
        if request is None or request.spec.signerName != KUBELET_CLIENT or not is_pending(request):
            return
        try:
            asked = read_request(request.spec.request)
        except BadRequestPem:
            return
        for permission, message in _permissions(request.spec, asked):
            if await self._may(request, permission):
                await self._approve(request, message)
                return
        self._log.debug("request is left to people", csr=key, user=request.spec.username)

    async def _may(self, request: Request, permission: str) -> bool:
        review = authorization_pb2.SubjectAccessReview()
        spec = review.spec
        spec.user, spec.uid = request.spec.username, request.spec.uid
        spec.groups.extend(request.spec.groups)
        for name, values in request.spec.extra.items():
            spec.extra[name].items.extend(values.items)
        about = spec.resourceAttributes
        about.group, about.resource, about.subresource = (
            "certificates.k8s.io",
            "certificatesigningrequests",
            permission,
        )
        about.verb, about.version = "create", "*"
        return (await self._client.create(review)).status.allowed

    async def _approve(self, request: Request, message: str) -> None:
        stamp = to_time(self._clock.now())
        condition = request.status.conditions.add(type=APPROVED, status="True", reason="AutoApproved", message=message)
        condition.lastUpdateTime.CopyFrom(stamp)
        await self._client.update_subresource(request, "approval")
        self._log.info("request approved", csr=request.metadata.name, user=request.spec.username)


def _permissions(spec: certificates_pb2.CertificateSigningRequestSpec, asked: Asked) -> list[tuple[str, str]]:
    """What to ask for, in order; nothing where the request is none of a kubelet's client."""
    if fault(KUBELET_CLIENT, asked, frozenset(spec.usages)):
        return []
    return [_SELF, _OTHER] if spec.username == asked.common_name else [_OTHER]
