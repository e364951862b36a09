"""Entity tags of discovery and OpenAPI."""

from __future__ import annotations

import pytest

from tests.support.apiserver import RunningServer

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
OPENAPI_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        pytest.param("/openapi/v2", "application/json", id="v2 in JSON"),
        pytest.param("/openapi/v2", OPENAPI_PROTOBUF, id="v2 in protobuf"),
        pytest.param("/openapi/v3/apis/apps/v1", "application/json", id="v3"),
        pytest.param("/apis", AGGREGATED, id="aggregated discovery"),
        pytest.param("/api", AGGREGATED, id="aggregated discovery of the core"),
    ],
)
async def test_A41_document_that_the_client_has_is_not_sent_again(
    server: RunningServer, path: str, accept: str
) -> None:
    first = await server.http("GET", path, headers={"Accept": accept})
    (tag,) = first.header("ETag")
    again = await server.http("GET", path, headers={"Accept": accept, "If-None-Match": f'"other", {tag}'})
    assert (first.status, again.status, again.body, again.header("ETag")) == (200, 304, b"", [tag])
    changed = await server.http("GET", path, headers={"Accept": accept, "If-None-Match": '"other"'})
    assert (changed.status, changed.body) == (200, first.body)


async def test_A41_document_named_by_its_hash_may_be_kept_for_ever(server: RunningServer) -> None:
    index = (await server.http("GET", "/openapi/v3")).json()
    address = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    named = await server.http("GET", address)
    assert named.header("Cache-Control") == ["public, immutable"]
    assert address.endswith(named.header("ETag")[0].strip('"'))
    old = await server.http("GET", "/openapi/v3/apis/apps/v1?hash=OLD")
    assert (old.status, old.header("Location")) == (301, [address])
    plain = await server.http("GET", "/openapi/v3/apis/apps/v1")
    assert plain.header("Cache-Control") == ["no-cache, private"]
