"""Who may approve and sign certificates, and for whom none is asked."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.authentication.interface import MASTERS
from tiphys_apiserver.authorization.interface import Attributes, Authorizer

GROUP = "certificates.k8s.io"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


def _is_request(attributes: AdmissionAttributes) -> bool:
    return attributes.resource.plural == "certificatesigningrequests" and attributes.resource.group == GROUP


class CertificateApproval:
    """Approving and signing need a right on the signer besides the right to write the request."""

    name = "CertificateApproval"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Writes of approval and status."""
        return (
            _is_request(attributes)
            and attributes.operation is Operation.UPDATE
            and attributes.subresource in ("approval", "status")
        )

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden."""
        new: Any = attributes.object
        old: Any = attributes.old_object
        verb = "approve" if attributes.subresource == "approval" else "sign"
        if verb == "sign" and new.status == old.status:
            return
        signer = old.spec.signerName
        # A right on example.com/* is one on every signer of the domain.
        for name in (signer, f"{signer.partition('/')[0]}/*"):
            question = Attributes(
                attributes.user, verb, True, api_group=GROUP, api_version="*", resource="signers", name=name
            )
            if (await self._authorizer.authorize(question)).allowed:
                return
        raise refuse(attributes, f'user not permitted to {verb} requests with signerName "{signer}"')


class CertificateSubjectRestriction:
    """No certificate of a client of the API makes its holder a master."""

    name = "CertificateSubjectRestriction"

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New requests to the signer of the API's clients."""
        request: Any = attributes.object
        return (
            _is_request(attributes)
            and attributes.operation is Operation.CREATE
            and not attributes.subresource
            and request.spec.signerName == CLIENT_SIGNER
        )

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden."""
        request: Any = attributes.object
        # The kind's own rules have parsed it before.
        subject = x509.load_pem_x509_csr(request.spec.request).subject
        groups = [str(part.value) for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        if MASTERS in groups:
            raise refuse(attributes, f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")
