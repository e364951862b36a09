"""What is refused, and in which words: a start that can't work, and requests of strangers."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from tiphys.api.authentication.v1.authentication_pb2 import TokenReview
from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_component.app import StartupError
from tiphys_component.clock import FakeClock
from tiphys_kubelet.main import check
from tiphys_kubelet.options import Options
from tiphys_kubelet.server.app import KubeletServer, stream_request
from tiphys_kubelet.server.auth import ApiGuard, User, certificate_user, subresource_of


def options(**flags: Any) -> Options:
    """Options of a kubelet that is not started."""
    return Options(kubeconfig=Path("none"), **flags)


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user the first check wins")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"container_runtime_endpoint": "unix:///no/such.sock"}, "no container runtime listens at /no/such.sock"),
        ({"container_runtime_endpoint": "npipe://x"}, "neither a path nor unix:// nor tcp://"),
        (
            {"container_runtime_endpoint": "tcp://h:1", "register_with_taints": ("x",)},
            'taint "x" must be key=value:effect',
        ),
    ],
    ids=["no-runtime", "bad-endpoint", "bad-taint"],
)
def test_start_that_can_not_work_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(StartupError) as refused:
        check(options(**flags))
    assert words in refused.value.message
    assert refused.value.advice


async def test_port_in_use_is_told_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = KubeletServer(None, "127.0.0.1", port, None)  # type: ignore[arg-type]  # it does not come to be used
        with pytest.raises(StartupError) as refused:
            await server.run()
    assert str(port) in refused.value.message
    assert "--port" in refused.value.advice


class Reviewer:
    """An API server that answers reviews: ann may read pods of the node, nobody else anything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.down = False

    async def create(self, review: Any) -> Any:
        if self.down:
            raise ServiceUnavailable("away")
        if isinstance(review, TokenReview):
            self.asked.append(("token", review.spec.token))
            review.status.authenticated = review.spec.token == "good"
            review.status.user.username = "ann"
        else:
            attributes = review.spec.resourceAttributes
            self.asked.append((review.spec.user, f"{attributes.verb} {attributes.resource}/{attributes.subresource}"))
            review.status.allowed = review.spec.user == "ann" and attributes.subresource == "pods"
        return review


def guard(reviewer: Reviewer, clock: FakeClock | None = None) -> ApiGuard:
    """A guard that trusts one name."""
    return ApiGuard(reviewer, clock or FakeClock(), "n1", trusted=("apiserver",))


def request(path: str, token: str = "", method: str = "GET") -> web.Request:
    """A request without a client certificate."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = Mock()
    transport.get_extra_info.return_value = None
    return make_mocked_request(method, path, headers=headers, transport=transport)


async def test_token_that_the_api_server_vouches_for_is_let_in_where_it_may() -> None:
    reviewer = Reviewer()
    assert await guard(reviewer).admit(request("/pods", "good")) == User("ann")
    assert reviewer.asked == [("token", "good"), ("ann", "get nodes/pods")]


@pytest.mark.parametrize("token", ["", "bad"])
async def test_nobody_is_unauthorized(token: str) -> None:
    with pytest.raises(web.HTTPUnauthorized):
        await guard(Reviewer()).admit(request("/pods", token))


async def test_what_is_not_allowed_is_forbidden() -> None:
    with pytest.raises(web.HTTPForbidden) as refused:
        await guard(Reviewer()).admit(request("/exec/default/web/app", "good", "POST"))
    assert refused.value.text == "Forbidden (user=ann, verb=create, resource=nodes, subresource=proxy)"


async def test_without_an_api_server_nobody_new_is_let_in() -> None:
    reviewer = Reviewer()
    reviewer.down = True
    keeper = guard(reviewer)
    assert not await keeper.may(User("ann"), "get", "pods")
    assert await keeper.may(User("apiserver"), "get", "proxy")
    assert await keeper.may(User("root", ("system:masters",)), "get", "proxy")


async def test_answers_are_remembered_for_half_a_minute() -> None:
    reviewer, clock = Reviewer(), FakeClock()
    keeper = guard(reviewer, clock)
    for _ in range(3):
        assert await keeper.may(User("ann"), "get", "pods")
    assert len(reviewer.asked) == 1
    clock.advance(31)
    await keeper.may(User("ann"), "get", "pods")
    assert len(reviewer.asked) == 2


def test_certificate_names_user_and_groups() -> None:
    peer = {"subject": ((("organizationName", "g1"),), (("organizationName", "g2"),), (("commonName", "ann"),))}
    assert certificate_user(peer) == User("ann", ("g1", "g2"))
    assert certificate_user(None) is None
    assert certificate_user({"subject": ()}) is None


@pytest.mark.parametrize(
    ("path", "subresource"),
    [("/pods", "pods"), ("/containerLogs/a/b/c", "proxy"), ("/stats/summary", "stats"), ("/metrics", "metrics")],
)
def test_paths_belong_to_subresources(path: str, subresource: str) -> None:
    assert subresource_of(path) == subresource


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("stdin=1&stdout=true", (True, True, False, False)),
        ("input=1&output=1&error=1", (True, True, True, False)),
        ("tty=1&stdout=1&stderr=1", (False, True, False, True)),
    ],
)
def test_streams_of_a_request(query: str, expected: tuple[bool, ...]) -> None:
    streams = stream_request(make_mocked_request("GET", f"/exec?{query}"))
    assert (streams.stdin, streams.stdout, streams.stderr, streams.tty) == expected


def test_request_for_no_stream_is_refused() -> None:
    with pytest.raises(web.HTTPBadRequest):
        stream_request(make_mocked_request("GET", "/exec?command=id"))
