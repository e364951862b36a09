"""Approving, signing and asking for certificates."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.unit.apiserver.admission.attributes import write
from tests.unit.apiserver.fake_objects import read
from tiphys.api.certificates.v1.certificates_pb2 import CertificateSigningRequest
from tiphys_apimachinery.errors import Forbidden
from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.admission.plugins.certificates import CertificateApproval, CertificateSubjectRestriction
from tiphys_apiserver.authorization.interface import Attributes, Decision, Verdict


class Rights:
    """Allows these (verb, signer) pairs."""

    def __init__(self, *allowed: tuple[str, str]) -> None:
        self._allowed = allowed

    async def authorize(self, attributes: Attributes) -> Decision:
        allowed = attributes.resource == "signers" and (attributes.verb, attributes.name) in self._allowed
        return Decision(Verdict.ALLOW if allowed else Verdict.NO_OPINION)


def request(signer: str = "example.com/a", organization: str = "dev") -> Any:
    obj: Any = read(CertificateSigningRequest, f"{{metadata: {{name: x}}, spec: {{signerName: {signer}}}}}")
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "bob"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    obj.spec.request = made.public_bytes(Encoding.PEM)
    return obj


@pytest.mark.parametrize(
    ("rights", "subresource", "allowed"),
    [
        pytest.param(("approve", "example.com/a"), "approval", True, id="approve"),
        pytest.param(("approve", "example.com/*"), "approval", True, id="approve by domain"),
        pytest.param(("approve", "example.com/b"), "approval", False, id="approve of another signer"),
        pytest.param(("sign", "example.com/a"), "approval", False, id="signer approves"),
        pytest.param(("sign", "example.com/a"), "status", True, id="sign"),
        pytest.param(("approve", "example.com/a"), "status", False, id="approver signs"),
    ],
)
async def test_H11_right_on_the_signer_is_needed(rights: tuple[str, str], subresource: str, allowed: bool) -> None:
    old, new = request(), request()
    new.status.certificate = b"pem"
    attributes = write(Operation.UPDATE, new, old, subresource=subresource)
    plugin = CertificateApproval(Rights(rights))
    assert plugin.handles(attributes)
    if allowed:
        await plugin.validate(attributes)
    else:
        with pytest.raises(Forbidden, match="user not permitted to"):
            await plugin.validate(attributes)


@pytest.mark.parametrize(("organization", "allowed"), [("dev", True), ("system:masters", False)])
async def test_H11_nobody_becomes_a_master_by_certificate(organization: str, allowed: bool) -> None:
    attributes = write(Operation.CREATE, request("kubernetes.io/kube-apiserver-client", organization))
    plugin = CertificateSubjectRestriction()
    assert plugin.handles(attributes)
    if allowed:
        await plugin.validate(attributes)
    else:
        with pytest.raises(Forbidden, match="signer with system:masters group is not allowed"):
            await plugin.validate(attributes)


def test_other_signers_may_certify_what_they_like() -> None:
    attributes = write(Operation.CREATE, request("example.com/a", "system:masters"))
    assert not CertificateSubjectRestriction().handles(attributes)
