"""Who may do what, through both doors of a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import jwt
import pytest

from tests.support.apiserver import RunningServer
from tiphys.api.authentication.v1 import authentication_pb2
from tiphys.apiserver.v1 import wire_pb2

DEFAULT = "/api/v1/namespaces/default"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
NODE = "system:node:n1"


async def made(server: RunningServer, path: str, body: Any, **how: Any) -> Any:
    """The object as created."""
    reply = await server.http("POST", path, body, **how)
    assert reply.status == 201, reply.body
    return reply.json()


async def bind(server: RunningServer, name: str, role: str, user: str) -> None:
    """Give a user a cluster role in the namespace default."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    subjects = [{"kind": "User", "name": user}]
    body = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
    await made(server, f"{RBAC}/namespaces/default/rolebindings", body)


def pod(name: str, **spec: Any) -> Any:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "busybox"}], **spec}}


async def token(server: RunningServer, account: str, **spec: Any) -> str:
    reply = await made(server, f"{DEFAULT}/serviceaccounts/{account}/token", {"spec": spec})
    return str(reply["status"]["token"])


async def test_H3_binding_counts_from_the_next_request_on(server: RunningServer) -> None:
    assert (await server.http("GET", f"{DEFAULT}/pods", user="alice")).status == 403
    await bind(server, "a", "view", "alice")
    assert (await server.http("GET", f"{DEFAULT}/pods", user="alice")).status == 200
    assert (await server.http("GET", f"{DEFAULT}/secrets", user="alice")).status == 403
    await server.http("DELETE", f"{RBAC}/namespaces/default/rolebindings/a")
    assert (await server.http("GET", f"{DEFAULT}/pods", user="alice")).status == 403


async def test_H3_nobody_grants_more_than_they_hold(server: RunningServer) -> None:
    await bind(server, "a", "admin", "alice")
    roles = f"{RBAC}/namespaces/default/roles"
    rules = [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]
    reply = await server.http("POST", roles, {"metadata": {"name": "r"}, "rules": rules}, user="alice")
    assert reply.status == 403
    assert "is attempting to grant RBAC permissions not currently held" in reply.json()["message"]
    assert (await server.http("GET", f"{roles}/r")).status == 404


async def test_H8_token_dies_with_its_account(server: RunningServer) -> None:
    await made(server, f"{DEFAULT}/serviceaccounts", {"metadata": {"name": "bot"}})
    bearer = {"Authorization": f"Bearer {await token(server, 'bot')}"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    who = await server.http("POST", path, {}, user=None, headers=bearer)
    assert who.json()["status"]["userInfo"]["username"] == "system:serviceaccount:default:bot"
    await server.http("DELETE", f"{DEFAULT}/serviceaccounts/bot")
    for _ in range(50):
        gone = await server.http("POST", path, {}, user=None, headers=bearer)
        if gone.status == 401:
            break
        # The authenticator reads the watch cache, which follows the store a moment later.
        await asyncio.sleep(0.02)
    assert (gone.status, gone.json()["message"]) == (401, "Unauthorized")


async def test_H22_a_token_is_verified_offline_with_what_the_server_publishes(server: RunningServer) -> None:
    await made(server, f"{DEFAULT}/serviceaccounts", {"metadata": {"name": "robot"}})
    bearer = await token(server, "robot", audiences=["vault"])
    discovery = (await server.http("GET", "/.well-known/openid-configuration")).json()
    published = jwt.PyJWKSet.from_dict((await server.http("GET", "/openid/v1/jwks")).json())
    assert discovery["jwks_uri"].endswith("/openid/v1/jwks")
    key = published[jwt.get_unverified_header(bearer)["kid"]]
    algorithms = discovery["id_token_signing_alg_values_supported"]
    claims = jwt.decode(bearer, key.key, algorithms=algorithms, audience="vault", issuer=discovery["issuer"])
    assert claims["sub"] == "system:serviceaccount:default:robot"
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(bearer, key.key, algorithms=algorithms, audience="other")
    head, body, signature = bearer.split(".")
    forged = ("B" if signature.startswith("A") else "A") + signature[1:]
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(f"{head}.{body}.{forged}", key.key, algorithms=algorithms, audience="vault")


async def test_H8_token_is_made_over_grpc_and_reviewed(server: RunningServer) -> None:
    request = authentication_pb2.TokenRequest()
    create = wire_pb2.CreateRequest(namespace="default", name="default", object=request.SerializeToString())
    raw = await server.grpc("core.v1.ServiceAccountService", "CreateToken", create)
    answer = authentication_pb2.TokenRequest.FromString(wire_pb2.CreateResponse.FromString(raw).object)
    body = {"spec": {"token": answer.status.token}}
    review = await made(server, "/apis/authentication.k8s.io/v1/tokenreviews", body)
    assert review["status"]["authenticated"] is True
    assert review["status"]["user"]["username"] == "system:serviceaccount:default:default"


async def test_H20_impersonation_must_be_allowed(server: RunningServer) -> None:
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    headers = {"Impersonate-User": "bob", "Impersonate-Group": "ops"}
    who = await server.http("POST", path, {}, headers=headers)
    assert who.json()["status"]["userInfo"] == {"username": "bob", "groups": ["ops", "system:authenticated"]}
    refused = await server.http("POST", path, {}, user="alice", headers=headers)
    assert refused.status == 403
    assert 'User "alice" cannot impersonate resource "users"' in refused.json()["message"]


async def test_H10_kubelet_is_held_to_its_node_and_its_pods(server: RunningServer) -> None:
    await made(server, "/api/v1/nodes", {"metadata": {"name": "n1"}}, user=NODE)
    assert (await server.http("POST", "/api/v1/nodes", {"metadata": {"name": "n2"}}, user=NODE)).status == 403
    for name in ("mine", "other"):
        await made(server, f"{DEFAULT}/secrets", {"metadata": {"name": name}})
    volumes = [{"name": "v", "secret": {"secretName": "mine"}}]
    running = await made(server, f"{DEFAULT}/pods", pod("p", nodeName="n1", volumes=volumes))
    for _ in range(50):
        mine = await server.http("GET", f"{DEFAULT}/secrets/mine", user=NODE)
        if mine.status == 200:
            break
        await asyncio.sleep(0.02)
    assert mine.status == 200
    other = await server.http("GET", f"{DEFAULT}/secrets/other", user=NODE)
    assert (other.status, "no relationship found between node 'n1'" in other.json()["message"]) == (403, True)
    assert (await server.http("GET", "/api/v1/pods", user=NODE)).status == 403
    own = await server.http("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", user=NODE)
    assert [item["metadata"]["name"] for item in own.json()["items"]] == ["p"]
    free = await server.http("POST", f"{DEFAULT}/serviceaccounts/default/token", {"spec": {}}, user=NODE)
    assert (free.status, "not bound to a pod" in free.json()["message"]) == (403, True)
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": running["metadata"]["uid"]}
    bound = {"spec": {"boundObjectRef": reference}}
    await made(server, f"{DEFAULT}/serviceaccounts/default/token", bound, user=NODE)


async def test_H10_kubelet_is_held_over_grpc_as_well(server: RunningServer) -> None:
    await made(server, f"{DEFAULT}/secrets", {"metadata": {"name": "other"}})
    for service, method, request in (
        ("core.v1.SecretService", "Get", wire_pb2.GetRequest(namespace="default", name="other")),
        ("core.v1.PodService", "List", wire_pb2.ListRequest()),
        ("core.v1.SecretService", "List", wire_pb2.ListRequest(namespace="default")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.grpc(service, method, request, user=NODE)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, service
    own = wire_pb2.ListRequest(field_selector="spec.nodeName=n1")
    await server.grpc("core.v1.PodService", "List", own, user=NODE)


async def test_A45_namespaces_guard_what_is_in_them(server: RunningServer) -> None:
    missing = await server.http("POST", "/api/v1/namespaces/none/configmaps", {"metadata": {"name": "x"}})
    assert (missing.status, missing.json()["message"]) == (404, 'namespaces "none" not found')
    await made(server, "/api/v1/namespaces", {"metadata": {"name": "web"}})
    await made(server, "/api/v1/namespaces/web/configmaps", {"metadata": {"name": "x"}})
    gone = await server.http("DELETE", "/api/v1/namespaces/web")
    assert gone.json()["status"]["phase"] == "Terminating"
    for _ in range(50):
        late = await server.http("POST", "/api/v1/namespaces/web/configmaps", {"metadata": {"name": "y1"}})
        if late.status == 403:
            break
        await asyncio.sleep(0.02)
    assert "because it is being terminated" in late.json()["message"]
    kept = await server.http("DELETE", "/api/v1/namespaces/kube-system")
    assert (kept.status, "may not be deleted" in kept.json()["message"]) == (403, True)


async def test_A45_pod_gets_account_tolerations_and_priority(server: RunningServer) -> None:
    spec = (await made(server, f"{DEFAULT}/pods", pod("p", priorityClassName="system-node-critical")))["spec"]
    assert (spec["serviceAccountName"], spec["priority"]) == ("default", 2000001000)
    assert spec["volumes"][0]["name"].startswith("kube-api-access-")
    assert [toleration["tolerationSeconds"] for toleration in spec["tolerations"]] == [300, 300]


async def test_G1_services_share_no_address_however_many_come_at_once(server: RunningServer) -> None:
    body = {"spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(made(server, f"{DEFAULT}/services", {"metadata": {"name": f"s{number}"}, **body}))
            for number in range(20)
        ]
    specs = [task.result()["spec"] for task in tasks]
    assert len({spec["clusterIP"] for spec in specs}) == 20
    assert len({spec["ports"][0]["nodePort"] for spec in specs}) == 20
    taken = {"metadata": {"name": "x"}, "spec": {"clusterIP": specs[0]["clusterIP"], "ports": [{"port": 80}]}}
    refused = await server.http("POST", f"{DEFAULT}/services", taken)
    assert (refused.status, "provided IP is already allocated" in refused.json()["message"]) == (422, True)
    await server.http("DELETE", f"{DEFAULT}/services/s0")
    await made(server, f"{DEFAULT}/services", taken)


async def test_H8_a_token_opens_the_grpc_door_too(server: RunningServer) -> None:
    await made(server, f"{DEFAULT}/serviceaccounts", {"metadata": {"name": "bot"}})
    bearer = await token(server, "bot")
    request = wire_pb2.ListRequest(namespace="default")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.grpc_by_token("core.v1.PodService", "List", request, bearer)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    await bind(server, "bots", "view", "system:serviceaccount:default:bot")
    await server.grpc_by_token("core.v1.PodService", "List", request, bearer)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.grpc_by_token("core.v1.PodService", "List", request, "no token at all")
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
