"""Row H11: signing requests of nodes, from the token by which one joins to the certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.integration.controller_manager.conftest import Cluster, cluster_of
from tests.support.apiserver import running_server
from tiphys.api.certificates.v1 import certificates_pb2
from tiphys.api.core.v1 import secret_pb2
from tiphys.api.rbac.v1 import rbac_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_component.tls import create_request

Request = certificates_pb2.CertificateSigningRequest
_SERVICE = "certificates.v1.CertificateSigningRequestService"
_TOKEN = "abcdef.0123456789abcdef"
_CLIENT = ("digital signature", "client auth")


def _request(name: str, signer: str, pem: bytes, *usages: str) -> Request:
    made = Request()
    made.metadata.name = name
    made.spec.request, made.spec.signerName = pem, f"kubernetes.io/{signer}"
    made.spec.usages.extend(usages)
    return made


def _node_request(node: str) -> bytes:
    return create_request(f"system:node:{node}", organizations=["system:nodes"])[0]


async def _decided(cluster: Cluster, name: str) -> Any:
    """The request once it has a certificate or has failed."""

    async def look() -> Any:
        found = await cluster.client.get(Request, name)
        failed = any(condition.type == "Failed" for condition in found.status.conditions)
        return found if found.status.certificate or failed else None

    return await cluster.until(look)


async def _approve(cluster: Cluster, name: str) -> None:
    found = await cluster.client.get(Request, name)
    found.status.conditions.add(type="Approved", status="True", reason="ByHand")
    await cluster.client.update_subresource(found, "approval")


def _bootstrap_secret() -> secret_pb2.Secret:
    secret = secret_pb2.Secret(type="bootstrap.kubernetes.io/token")
    secret.metadata.name, secret.metadata.namespace = "bootstrap-token-abcdef", "kube-system"
    secret.data["token-id"], secret.data["token-secret"] = b"abcdef", b"0123456789abcdef"
    secret.data["usage-bootstrap-authentication"] = b"true"
    return secret


def _binding(name: str, role: str) -> rbac_pb2.ClusterRoleBinding:
    made = rbac_pb2.ClusterRoleBinding()
    made.metadata.name = name
    made.roleRef.apiGroup, made.roleRef.kind, made.roleRef.name = "rbac.authorization.k8s.io", "ClusterRole", role
    made.subjects.add(kind="Group", name="system:bootstrappers", apiGroup="rbac.authorization.k8s.io")
    return made


async def test_H11_B35_node_joins_with_a_token_and_gets_its_certificate() -> None:
    async with running_server(enable_bootstrap_token_auth=True) as server, cluster_of(server, signs=True) as cluster:
        await cluster.client.create(_bootstrap_secret())
        await cluster.client.create(_binding("a", "system:node-bootstrapper"))
        await cluster.client.create(_binding("b", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"))
        asked = _request("join", "kube-apiserver-client-kubelet", _node_request("n9"), *_CLIENT)
        asked.spec.expirationSeconds = 3600
        await server.grpc_by_token(_SERVICE, "Create", wire_pb2.CreateRequest(object=asked.SerializeToString()), _TOKEN)
        signed = await _decided(cluster, "join")

    certificate = x509.load_pem_x509_certificate(signed.status.certificate)
    authority = x509.load_pem_x509_certificate((server.pki.folder / "ca.crt").read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert certificate.subject.rfc4514_string() == "CN=system:node:n9,O=system:nodes"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert abs(certificate.not_valid_after_utc - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    assert signed.spec.username == "system:bootstrap:abcdef"
    approved = [condition for condition in signed.status.conditions if condition.type == "Approved"]
    assert [condition.reason for condition in approved] == ["AutoApproved"]


@pytest.mark.parametrize(
    ("signer", "pem", "usages", "why"),
    [
        pytest.param(
            "kube-apiserver-client-kubelet",
            create_request("eve", organizations=["system:nodes"])[0],
            _CLIENT,
            "common name",
            id="a name that is no node's",
        ),
        pytest.param(
            "kubelet-serving", _node_request("n9"), ("digital signature", "server auth"), "subjectAltName", id="no name"
        ),
        pytest.param(
            "kube-apiserver-client",
            create_request("ann")[0],
            ("digital signature", "server auth"),
            "usages",
            id="a server's usage for a client",
        ),
    ],
)
async def test_H11_approved_request_that_the_signer_may_not_sign_fails_with_the_reason(
    signer: str, pem: bytes, usages: tuple[str, ...], why: str
) -> None:
    async with running_server() as server, cluster_of(server, signs=True) as cluster:
        await cluster.client.create(_request("r", signer, pem, *usages))
        await _approve(cluster, "r")
        found = await _decided(cluster, "r")

    failed = next(condition for condition in found.status.conditions if condition.type == "Failed")
    assert not found.status.certificate
    assert why in failed.message


@pytest.mark.parametrize(
    ("signer", "pem", "usages"),
    [
        pytest.param("kube-apiserver-client", create_request("ann", organizations=["dev"])[0], _CLIENT, id="a person"),
        pytest.param(
            "kubelet-serving",
            create_request("system:node:n1", organizations=["system:nodes"], sans=["10.0.0.1"])[0],
            ("digital signature", "server auth"),
            id="a kubelet's server",
        ),
        pytest.param("legacy-unknown", create_request("old")[0], ("client auth",), id="legacy"),
    ],
)
async def test_H11_B35_request_a_person_approves_is_signed(signer: str, pem: bytes, usages: tuple[str, ...]) -> None:
    async with running_server() as server, cluster_of(server, signs=True) as cluster:
        await cluster.client.create(_request("r", signer, pem, *usages))
        assert not (await cluster.client.get(Request, "r")).status.certificate
        await _approve(cluster, "r")
        found = await _decided(cluster, "r")

    assert x509.load_pem_x509_certificate(found.status.certificate)


async def test_H11_node_that_nobody_vouches_for_is_left_to_people(tmp_path: Path) -> None:
    async with running_server() as server, cluster_of(server, signs=True) as cluster:
        asked = _request("r", "kube-apiserver-client-kubelet", _node_request("n9"), *_CLIENT)
        # n1 may ask for its own certificate only.
        with pytest.raises(grpc.aio.AioRpcError):
            await server.grpc(_SERVICE, "Create", wire_pb2.CreateRequest(object=b""), user="system:node:n1")
        await server.grpc(
            _SERVICE, "Create", wire_pb2.CreateRequest(object=asked.SerializeToString()), user="system:node:n1"
        )
        mine = _request("mine", "kube-apiserver-client-kubelet", _node_request("n1"), *_CLIENT)
        await server.grpc(
            _SERVICE, "Create", wire_pb2.CreateRequest(object=mine.SerializeToString()), user="system:node:n1"
        )
        await cluster.client.create(_binding_of_nodes())
        mine.metadata.name = "again"
        await server.grpc(
            _SERVICE, "Create", wire_pb2.CreateRequest(object=mine.SerializeToString()), user="system:node:n1"
        )
        await _decided(cluster, "again")
        assert not (await cluster.client.get(Request, "r")).status.conditions


def _binding_of_nodes() -> rbac_pb2.ClusterRoleBinding:
    made = _binding("nodes", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient")
    made.subjects[0].name = "system:nodes"
    return made


async def test_H11_expired_bootstrap_token_is_deleted() -> None:
    async with running_server() as server, cluster_of(server, controllers=("token-cleaner-controller",)) as cluster:
        secret = _bootstrap_secret()
        secret.data["expiration"] = b"2026-01-01T00:00:00Z"
        await cluster.client.create(secret)

        async def is_gone() -> bool:
            try:
                await cluster.client.get(secret_pb2.Secret, secret.metadata.name, "kube-system")
            except NotFound:
                return True
            return False

        assert await cluster.until(is_gone)
