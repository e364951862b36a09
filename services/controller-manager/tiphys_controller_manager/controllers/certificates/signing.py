"""Signs approved requests of Kubernetes' own signers with the cluster's authority."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from tiphys.api.certificates.v1 import certificates_pb2
from tiphys_apimachinery.meta import to_time
from tiphys_client.controller import Terminal
from tiphys_component.certificates import CertificateAuthority
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_controller_manager.controllers.certificates.requests import (
    FAILED,
    SIGNERS,
    BadRequestPem,
    fault,
    is_approved,
    lifetime,
    read_request,
)
from tiphys_controller_manager.frame import Context, Watch, own_key

Request = certificates_pb2.CertificateSigningRequest


class CertificateSigner:
    """Keys are names of requests."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._files = (context.options.cluster_signing_cert_file, context.options.cluster_signing_key_file)
        self._longest = timedelta(seconds=context.options.cluster_signing_duration_s)
        self._requests = context.informers.of(Request)
        self._log = get_logger("certificatesigningrequest-signing-controller")

    def watches(self) -> Iterable[Watch]:
        """The requests."""
        return (Watch(Request, own_key),)

    def first_keys(self) -> Iterable[str]:
        """None: every request is seen as added."""
        return ()

    async def reconcile(self, key: str) -> None:
        """Sign one request, or say why it can't be signed. Raises errors of the API."""
        request = self._requests.get(key)
        if request is None or request.spec.signerName not in SIGNERS:
            return
        if request.status.certificate or not is_approved(request):
            return
        authority = await to_thread(self._authority)
        usages = frozenset(request.spec.usages)
        try:
            why = fault(request.spec.signerName, read_request(request.spec.request), usages)
            if not why:
                wanted = request.spec.expirationSeconds if request.spec.HasField("expirationSeconds") else None
                request.status.certificate = authority.sign_request(
                    request.spec.request,
                    server="server auth" in usages,
                    client="client auth" in usages,
                    validity=lifetime(wanted, self._longest),
                    now=self._clock.now(),
                )
        except (BadRequestPem, ValueError) as err:
            why = f"unable to parse csr {request.spec.request[:40]!r}: {err}"
        if why:
            stamp = to_time(self._clock.now())
            failed = request.status.conditions.add(
                type=FAILED, status="True", reason="SignerValidationFailure", message=why
            )
            failed.lastUpdateTime.CopyFrom(stamp)
            failed.lastTransitionTime.CopyFrom(stamp)
        await self._client.update_status(request)
        self._log.info("request signed" if not why else "request can't be signed", csr=key, reason=why)

    def _authority(self) -> CertificateAuthority:
        """Read anew for each: the authority may be replaced meanwhile. Raises Terminal, OSError, ValueError."""
        cert, key = self._files
        if cert is None or key is None:
            raise Terminal("there is no authority to sign with: give --cluster-signing-cert-file and -key-file")
        return CertificateAuthority.load(cert, key)
