"""Signing requests: what the signers take, how long certificates hold, and when requests are deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.controller_manager.harness import house, names
from tiphys.api.certificates.v1 import certificates_pb2
from tiphys_apimachinery.meta import to_time
from tiphys_component.clock import FakeClock
from tiphys_controller_manager.controllers.certificates.requests import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    LEGACY,
    Asked,
    fault,
    lifetime,
)

Request = certificates_pb2.CertificateSigningRequest
_NODE = Asked("system:node:n1", ("system:nodes",))
_SERVER = Asked("system:node:n1", ("system:nodes",), dns_names=1)
_CLIENT_USAGES = ("digital signature", "client auth")


@pytest.mark.parametrize(
    ("signer", "asked", "usages", "said"),
    [
        pytest.param(KUBELET_CLIENT, _NODE, _CLIENT_USAGES, "", id="kubelet"),
        pytest.param(KUBELET_CLIENT, _NODE, (*_CLIENT_USAGES, "key encipherment"), "", id="kubelet with RSA"),
        pytest.param(KUBELET_CLIENT, _NODE, ("client auth",), "usages", id="kubelet without signature"),
        pytest.param(KUBELET_CLIENT, _NODE, (*_CLIENT_USAGES, "server auth"), "usages", id="kubelet for both"),
        pytest.param(KUBELET_CLIENT, _SERVER, _CLIENT_USAGES, "subjectAltNames", id="kubelet with names"),
        pytest.param(KUBELET_CLIENT, Asked("ann", ("system:nodes",)), _CLIENT_USAGES, "common name", id="no node"),
        pytest.param(
            KUBELET_CLIENT,
            Asked("system:node:n1", ("system:nodes", "system:masters")),
            _CLIENT_USAGES,
            "organization",
            id="more groups",
        ),
        pytest.param(KUBELET_SERVING, _SERVER, ("digital signature", "server auth"), "", id="serving"),
        pytest.param(KUBELET_SERVING, _NODE, ("digital signature", "server auth"), "required", id="no names"),
        pytest.param(
            KUBELET_SERVING,
            Asked("system:node:n1", ("system:nodes",), dns_names=1, other_names=1),
            ("digital signature", "server auth"),
            "not allowed",
            id="email",
        ),
        pytest.param(CLIENT, Asked("ann", ("dev",)), ("client auth",), "", id="person"),
        pytest.param(CLIENT, Asked("ann", ("dev",)), ("server auth",), "usages", id="person as server"),
        pytest.param(LEGACY, Asked("x", ()), ("server auth", "client auth"), "", id="legacy"),
        pytest.param(LEGACY, Asked("x", ()), ("code signing",), "usages", id="legacy for nothing"),
    ],
)
def test_signer_takes_what_it_is_for(signer: str, asked: Asked, usages: tuple[str, ...], said: str) -> None:
    why = fault(signer, asked, frozenset(usages))

    assert said in why
    assert bool(why) == bool(said)


@pytest.mark.parametrize(
    ("wanted_s", "granted"),
    [(None, timedelta(hours=8)), (3600, timedelta(hours=1)), (1, timedelta(minutes=10)), (10**6, timedelta(hours=8))],
    ids=["nothing asked", "as asked", "too short", "too long"],
)
def test_life_is_what_is_asked_within_limits(wanted_s: int | None, granted: timedelta) -> None:
    assert lifetime(wanted_s, timedelta(hours=8)) == granted


def _request(clock: FakeClock, name: str, *conditions: str) -> Any:
    made = Request()
    made.metadata.name = name
    made.metadata.creationTimestamp.CopyFrom(to_time(clock.now()))
    for kind in conditions:
        made.status.conditions.add(type=kind, status="True").lastUpdateTime.CopyFrom(to_time(clock.now()))
    return made


async def test_H11_B35_requests_are_deleted_when_their_time_is_over() -> None:
    async with house("certificatesigningrequest-cleaner-controller") as built:
        built.client.seed(
            _request(built.clock, "approved", "Approved"),
            _request(built.clock, "denied", "Denied"),
            _request(built.clock, "failed", "Approved", "Failed"),
            _request(built.clock, "pending"),
        )
        await built.run_for(3590)
        assert names(await built.all(Request)) == ["approved", "denied", "failed", "pending"]
        await built.run_for(20)
        assert names(await built.all(Request)) == ["pending"]
        await built.run_for(23 * 3600)
        assert names(await built.all(Request)) == []
