"""Row H16: what a running server notes of requests by both doors."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from tests.support.apiserver import running_server
from tiphys.api.core.v1 import config_map_pb2, secret_pb2
from tiphys.apiserver.v1 import wire_pb2

_MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_ALL = "rules: [{level: Metadata}]"


def _policy(folder: Path, rules: str) -> Mapping[str, Any]:
    path = folder / "policy.yaml"
    path.write_text(f"apiVersion: audit.k8s.io/v1\nkind: Policy\n{textwrap.dedent(rules)}")
    return {"audit_policy_file": path, "audit_log_path": str(folder / "audit.log")}


def _events(folder: Path, **wanted: str) -> list[dict[str, Any]]:
    lines = (folder / "audit.log").read_bytes().splitlines()
    events = [orjson.loads(line) for line in lines]
    return [event for event in events if all(event.get(key) == value for key, value in wanted.items())]


def _config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}}


async def test_H16_each_mutating_call_leaves_exactly_one_complete_line(tmp_path: Path) -> None:
    maps = "/api/v1/namespaces/default/configmaps"
    async with running_server(**_policy(tmp_path, _ALL)) as server:
        answers = [
            await server.http("POST", maps, _config_map("a")),
            await server.http("POST", maps, _config_map("a")),
            await server.http("POST", maps, b"{"),
            await server.http("PUT", f"{maps}/a", _config_map("a")),
            await server.http("PATCH", f"{maps}/a", {"data": {"b": "2"}}, content_type="application/merge-patch+json"),
            await server.http("DELETE", f"{maps}/a"),
            await server.http("DELETE", maps),
            await server.http("POST", maps, _config_map("b"), user="alice"),
        ]
        made = config_map_pb2.ConfigMap()
        made.metadata.name, made.metadata.namespace = "g", "default"
        raw = made.SerializeToString()
        service = "core.v1.ConfigMapService"
        await server.grpc(service, "Create", wire_pb2.CreateRequest(object=raw))
        with pytest.raises(grpc.aio.AioRpcError):
            await server.grpc(service, "Create", wire_pb2.CreateRequest(object=raw))
        await server.grpc(service, "BatchCreate", wire_pb2.BatchCreateRequest(namespace="default", objects=[raw, raw]))
        await server.grpc(service, "Delete", wire_pb2.DeleteRequest(namespace="default", name="g"))
    codes = [answer.status for answer in answers]
    assert codes == [201, 409, 400, 200, 200, 200, 200, 403]

    mine = [event for event in _events(tmp_path) if event.get("objectRef", {}).get("resource") == "configmaps"]
    complete = [event for event in mine if event["stage"] == "ResponseComplete" and event["verb"] in _MUTATING]
    assert [event["responseStatus"]["code"] for event in complete] == [*codes, 201, 409, 201, 200]
    assert len({event["auditID"] for event in complete}) == len(complete)
    received = [event for event in mine if event["stage"] == "RequestReceived"]
    assert [event["auditID"] for event in received] == [event["auditID"] for event in complete]
    assert [answer.header("Audit-Id") for answer in answers] == [[event["auditID"]] for event in complete[:8]]
    assert not any("requestObject" in event or "responseObject" in event for event in mine)


async def test_H16_event_says_who_did_what_from_where_and_what_came_of_it(tmp_path: Path) -> None:
    async with running_server(**_policy(tmp_path, _ALL)) as server:
        await server.http(
            "POST",
            "/api/v1/namespaces/default/configmaps?dryRun=All",
            _config_map("a"),
            user="admin",
            headers={"User-Agent": "kubectl/v1", "Impersonate-User": "eve", "Impersonate-Group": "system:masters"},
        )
        await server.http("GET", "/api/v1/namespaces/default/secrets", user="alice")

    event = _events(tmp_path, stage="ResponseComplete", verb="create", userAgent="kubectl/v1")[0]
    assert event["kind"] == "Event"
    assert event["apiVersion"] == "audit.k8s.io/v1"
    assert event["level"] == "Metadata"
    assert event["requestURI"] == "/api/v1/namespaces/default/configmaps?dryRun=All"
    assert event["user"]["username"] == "admin"
    assert "system:masters" in event["user"]["groups"]
    assert event["impersonatedUser"]["username"] == "eve"
    assert event["sourceIPs"] == ["127.0.0.1"]
    assert event["objectRef"] == {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}
    assert event["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert event["requestReceivedTimestamp"] <= event["stageTimestamp"]
    refused = _events(tmp_path, stage="ResponseComplete", verb="list")[-1]
    assert refused["responseStatus"]["code"] == 403
    assert refused["responseStatus"]["reason"] == "Forbidden"
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"


async def test_H16_levels_say_which_bodies_are_noted_by_both_doors(tmp_path: Path) -> None:
    rules = """
    omitManagedFields: true
    rules:
    - {level: RequestResponse, resources: [{group: "", resources: [configmaps]}]}
    - {level: Request}
    """
    secret = secret_pb2.Secret(data={"password": b"hunter2"})
    secret.metadata.name, secret.metadata.namespace = "s", "default"
    made = config_map_pb2.ConfigMap(data={"a": "1"})
    made.metadata.name, made.metadata.namespace = "g", "default"
    async with running_server(**_policy(tmp_path, rules)) as server:
        await server.http("POST", "/api/v1/namespaces/default/configmaps", _config_map("h"))
        await server.grpc("core.v1.ConfigMapService", "Create", wire_pb2.CreateRequest(object=made.SerializeToString()))
        await server.http("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "x"}})
        await server.grpc("core.v1.SecretService", "Create", wire_pb2.CreateRequest(object=secret.SerializeToString()))

    def complete(resource: str) -> list[dict[str, Any]]:
        found = _events(tmp_path, stage="ResponseComplete", verb="create")
        return [event for event in found if event["objectRef"]["resource"] == resource]

    for event, name in zip(complete("configmaps")[-2:], ("h", "g"), strict=True):
        assert event["requestObject"]["metadata"]["name"] == name
        assert event["responseObject"]["data"] == {"a": "1"}
        assert event["responseObject"]["metadata"]["uid"]
        assert "managedFields" not in event["responseObject"]["metadata"]
    service = complete("services")[-1]
    assert service["requestObject"]["metadata"]["name"] == "x"
    assert "responseObject" not in service
    noted = complete("secrets")[-1]
    assert noted["level"] == "Metadata"
    assert noted["objectRef"]["name"] == "s"
    text = (tmp_path / "audit.log").read_bytes()
    assert b"hunter2" not in text
    assert b"aHVudGVyMg" not in text


async def test_H16_watches_are_noted_when_they_start_and_when_they_end_by_both_doors(tmp_path: Path) -> None:
    async with running_server(**_policy(tmp_path, _ALL)) as server:
        await server.http("GET", "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1")
        call = server.watch("core.v1.SecretService", wire_pb2.WatchRequest(namespace="default"))
        await call.initial_metadata()
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call.code()

    for resource in ("configmaps", "secrets"):
        events = [event for event in _events(tmp_path, verb="watch") if event["objectRef"]["resource"] == resource]
        mine = [event["stage"] for event in events if event["user"]["username"] == "admin"]
        assert mine == ["RequestReceived", "ResponseStarted", "ResponseComplete"]


async def test_H16_caller_who_is_not_believed_is_noted(tmp_path: Path) -> None:
    async with running_server(**_policy(tmp_path, _ALL)) as server:
        answer = await server.http(
            "GET", "/api/v1/namespaces", user=None, headers={"Authorization": "Bearer of-bad-news"}
        )

    assert answer.status == 401
    event = _events(tmp_path, stage="ResponseStarted", verb="list")[0]
    assert event["responseStatus"]["code"] == 401
    assert event["user"]["username"] == ""
    assert b"of-bad-news" not in (tmp_path / "audit.log").read_bytes()


async def test_no_policy_notes_nothing(tmp_path: Path) -> None:
    async with running_server() as server:
        answer = await server.http("GET", "/api/v1/namespaces")

    assert answer.status == 200
    assert not answer.header("Audit-Id")
