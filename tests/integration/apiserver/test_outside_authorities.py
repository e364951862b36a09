"""Rows H1, H2, H16: users and rights that others vouch for, and what others are told, by a real server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
import orjson
import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.apiserver import RunningServer, running_server, shared_pki
from tiphys.api.authentication.v1 import authentication_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apiserver.authentication.signing_keys import VerifyingKey
from tiphys_component.certificates import CertificateAuthority
from tiphys_component.rpc import channel
from tiphys_component.tls import TLSFiles

Answer = Callable[[web.BaseRequest], Any]


@asynccontextmanager
async def _https(answers: dict[str, Answer]) -> AsyncIterator[str]:
    """A small HTTPS server; the URL of it."""

    async def handle(request: web.BaseRequest) -> web.Response:
        answer = answers[request.path](request)
        return web.json_response(await answer if asyncio.iscoroutine(answer) else answer)

    pki = shared_pki().folder
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pki / "server.crt", pki / "server.key")
    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def _kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "webhook.kubeconfig"
    cluster = {"server": url, "certificate-authority": str(shared_pki().folder / "ca.crt")}
    document = {
        "clusters": [{"name": "hook", "cluster": cluster}],
        "users": [{"name": "me", "user": {"token": "mine"}}],
        "contexts": [{"name": "hook", "context": {"cluster": "hook", "user": "me"}}],
        "current-context": "hook",
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def _who_am_i(server: RunningServer, token: str) -> tuple[str, str]:
    """The user of a token as each door sees it; empty where it is refused."""
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    reply = await server.http("POST", path, {}, user=None, headers={"Authorization": f"Bearer {token}"})
    by_rest = reply.json()["status"]["userInfo"]["username"] if reply.status == 201 else ""
    try:
        raw = await server.grpc_by_token(
            "authentication.v1.SelfSubjectReviewService", "Create", wire_pb2.CreateRequest(), token
        )
    except grpc.aio.AioRpcError:
        return by_rest, ""
    review = authentication_pb2.SelfSubjectReview.FromString(wire_pb2.CreateResponse.FromString(raw).object)
    return by_rest, review.status.userInfo.username


async def test_H1_tokens_of_an_openid_issuer_are_taken_by_both_doors(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    answers: dict[str, Answer] = {}
    async with _https(answers) as url:
        answers["/.well-known/openid-configuration"] = lambda _: {"issuer": url, "jwks_uri": f"{url}/keys"}
        answers["/keys"] = lambda _: {"keys": [VerifyingKey.of(key.public_key()).to_jwk() | {"kid": "k"}]}
        claims = {"iss": url, "aud": "kubectl", "sub": "ann", "exp": 4102444800}
        good = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "k"})
        bad = jwt.encode(claims | {"aud": "else"}, key, algorithm="RS256", headers={"kid": "k"})
        changes = {
            "oidc_issuer_url": url,
            "oidc_client_id": "kubectl",
            "oidc_username_prefix": "oidc:",
            "oidc_ca_file": shared_pki().folder / "ca.crt",
        }
        async with running_server(authorization_mode=("AlwaysAllow",), **changes) as server:
            assert await _who_am_i(server, good) == ("oidc:ann", "oidc:ann")
            assert await _who_am_i(server, bad) == ("", "")


async def test_H1_token_webhook_is_asked_by_both_doors(tmp_path: Path) -> None:
    shown = []

    async def review(request: web.BaseRequest) -> Any:
        shown.append(request.headers["Authorization"])
        spec = (await request.json())["spec"]
        known = spec["token"] == "of-ann"
        return {"status": {"authenticated": known, "user": {"username": "ann"}}}

    async with _https({"/": review}) as url:
        changes = {"authentication_token_webhook_config_file": _kubeconfig(tmp_path, url)}
        async with running_server(authorization_mode=("AlwaysAllow",), **changes) as server:
            assert await _who_am_i(server, "of-ann") == ("ann", "ann")
            assert await _who_am_i(server, "of-nobody") == ("", "")
    assert shown == ["Bearer mine", "Bearer mine"]


async def test_H1_bootstrap_token_is_taken_by_both_doors_until_its_secret_is_gone() -> None:
    secret = {
        "metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef",
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
        },
    }
    path = "/api/v1/namespaces/kube-system/secrets"
    async with running_server(enable_bootstrap_token_auth=True) as server:
        assert await _who_am_i(server, "abcdef.0123456789abcdef") == ("", "")
        assert (await server.http("POST", path, secret)).status == 201
        name = "system:bootstrap:abcdef"
        assert await _who_am_i(server, "abcdef.0123456789abcdef") == (name, name)
        await server.http("DELETE", f"{path}/bootstrap-token-abcdef")
        assert await _who_am_i(server, "abcdef.0123456789abcdef") == ("", "")


async def test_H1_front_proxy_asks_for_others_and_only_it(tmp_path: Path) -> None:
    proxies = CertificateAuthority.create("proxies")
    (tmp_path / "proxies.crt").write_bytes(proxies.cert_pem)
    proxies.issue("front", client=True).write(tmp_path / "front.crt", tmp_path / "front.key")
    changes = {"requestheader_client_ca_file": tmp_path / "proxies.crt", "requestheader_allowed_names": ("front",)}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    async with running_server(**changes) as server:
        headers = {"X-Remote-User": "ann", "X-Remote-Group": "system:masters"}
        as_alice = await server.http("POST", path, {}, user="alice", headers=headers)
        assert as_alice.json()["status"]["userInfo"]["username"] == "alice"

        tls = TLSFiles(tmp_path / "front.crt", tmp_path / "front.key", shared_pki().folder / "ca.crt")
        async with channel(f"127.0.0.1:{server.api.grpc_port}", tls) as opened:
            call = opened.unary_unary("/tiphys.apiserver.authentication.v1.SelfSubjectReviewService/Create", None, None)
            metadata = (("x-remote-user", "ann"), ("x-remote-group", "system:masters"))
            raw = await call(wire_pb2.CreateRequest().SerializeToString(), metadata=metadata, timeout=10)
        review = authentication_pb2.SelfSubjectReview.FromString(wire_pb2.CreateResponse.FromString(raw).object)
        assert review.status.userInfo.username == "ann"
        assert "system:masters" in review.status.userInfo.groups


_POLICY = {
    "apiVersion": "abac.authorization.kubernetes.io/v1beta1",
    "kind": "Policy",
    "spec": {"user": "alice", "namespace": "default", "resource": "pods", "apiGroup": "", "readonly": True},
}
_ROLE = {
    "metadata": {"name": "r"},
    "rules": [{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]}],
}
_BINDING = {
    "metadata": {"name": "b"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
    "subjects": [{"kind": "User", "name": "alice"}],
}


@pytest.mark.parametrize("mode", ["ABAC", "RBAC"])
async def test_H2_same_access_by_policy_file_and_by_rbac(mode: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"authorization_mode": (mode,)}
    if mode == "ABAC":
        changes["authorization_policy_file"] = tmp_path / "policy.jsonl"
        changes["authorization_policy_file"].write_bytes(orjson.dumps(_POLICY))
    async with running_server(**changes) as server:
        if mode == "RBAC":
            roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
            await server.http("POST", f"{roles}/roles", _ROLE)
            await server.http("POST", f"{roles}/rolebindings", _BINDING)
        seen = [
            (await server.http(method, path, body, user="alice")).status
            for method, path, body in (
                ("GET", "/api/v1/namespaces/default/pods", None),
                ("GET", "/api/v1/namespaces/kube-system/pods", None),
                ("DELETE", "/api/v1/namespaces/default/pods/p", None),
                ("GET", "/api/v1/namespaces/default/secrets", None),
            )
        ]
    assert seen == [200, 403, 403, 403]


async def test_H2_webhook_decides_where_the_others_have_no_opinion(tmp_path: Path) -> None:
    async def review(request: web.BaseRequest) -> Any:
        about = (await request.json())["spec"].get("resourceAttributes", {})
        return {"status": {"allowed": about.get("resource") == "pods", "denied": about.get("resource") == "secrets"}}

    async with _https({"/": review}) as url:
        changes = {"authorization_webhook_config_file": _kubeconfig(tmp_path, url)}
        async with running_server(authorization_mode=("RBAC", "Webhook"), **changes) as server:
            base = "/api/v1/namespaces/default"
            assert (await server.http("GET", f"{base}/pods", user="alice")).status == 200
            assert (await server.http("GET", f"{base}/secrets", user="alice")).status == 403
            assert (await server.http("GET", f"{base}/secrets")).status == 200


async def test_H16_events_are_sent_to_a_webhook(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def take(request: web.BaseRequest) -> Any:
        events = await request.json()
        assert (events["kind"], events["apiVersion"]) == ("EventList", "audit.k8s.io/v1")
        sent.extend(events["items"])
        return {}

    (tmp_path / "policy.yaml").write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
    async with _https({"/": take}) as url:
        changes = {
            "audit_policy_file": tmp_path / "policy.yaml",
            "audit_webhook_config_file": _kubeconfig(tmp_path, url),
        }
        async with running_server(**changes) as server:
            body = {"metadata": {"name": "a"}}
            assert (await server.http("POST", "/api/v1/namespaces/default/configmaps", body)).status == 201
    complete = [event for event in sent if event["stage"] == "ResponseComplete" and event["verb"] == "create"]
    assert [event["objectRef"]["name"] for event in complete if event["objectRef"]["resource"] == "configmaps"] == ["a"]
