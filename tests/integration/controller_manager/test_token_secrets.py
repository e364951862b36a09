"""Secrets with tokens that do not end, made by hand, on the real API server."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import pytest

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_controllers import absent, has, listed
from tiphys.api.core.v1 import secret_pb2, service_account_pb2

Secret = secret_pb2.Secret
ServiceAccount = service_account_pb2.ServiceAccount


def token_secret(account: str = "robot") -> Secret:
    made = Secret(type="kubernetes.io/service-account-token")
    made.metadata.name, made.metadata.namespace = "robots-token", "default"
    made.metadata.annotations["kubernetes.io/service-account.name"] = account
    return made


async def filled(cluster: Cluster) -> Any:
    found = await cluster.client.get(Secret, "robots-token", "default")
    return found if "token" in found.data else None


@pytest.fixture
async def robot(cluster: Cluster) -> None:
    """An account."""
    made = ServiceAccount()
    made.metadata.name, made.metadata.namespace = "robot", "default"
    await cluster.client.create(made)


async def who_am_i(cluster: Cluster, token: str) -> int:
    """The status of a call that every authenticated user may make."""
    url = f"https://127.0.0.1:{cluster.server.api.secure_port}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    context = ssl.create_default_context(cafile=str(cluster.server.pki.folder / "ca.crt"))
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.post(url, json={}, headers=headers, ssl=context) as reply:
        return reply.status


@pytest.mark.usefixtures("robot")
async def test_B26_a_token_secret_made_by_hand_is_filled_and_its_token_ends_with_it(cluster: Cluster) -> None:
    await cluster.client.create(token_secret())
    found = await cluster.until(lambda: filled(cluster))
    assert found.data["namespace"] == b"default"
    assert found.data["ca.crt"] == (cluster.server.pki.folder / "ca.crt").read_bytes()
    account = await cluster.client.get(ServiceAccount, "robot", "default")
    assert found.metadata.annotations["kubernetes.io/service-account.uid"] == account.metadata.uid
    token = found.data["token"].decode()
    assert await who_am_i(cluster, token) == 201
    await cluster.client.delete(Secret, "robots-token", "default")

    async def is_refused() -> bool:
        return await who_am_i(cluster, token) == 401

    await cluster.until(is_refused)


@pytest.mark.usefixtures("robot")
async def test_B26_a_token_secret_goes_with_its_account(cluster: Cluster) -> None:
    await cluster.client.create(token_secret())
    await cluster.until(lambda: filled(cluster))
    await cluster.client.delete(ServiceAccount, "robot", "default")
    await cluster.until(lambda: absent(cluster, Secret, "robots-token", "default"))


async def test_B26_no_account_has_a_token_secret_that_nobody_asked_for(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, ServiceAccount, "default", "default"))
    assert await listed(cluster, Secret) == []
    account = await cluster.client.get(ServiceAccount, "default", "default")
    assert not account.secrets
