"""Admission of tokens."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.admission.attributes import ANN
from tests.unit.apiserver.fake_objects import FakeObjects, info_of
from tiphys.api.authentication.v1.authentication_pb2 import TokenRequest
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_apimachinery.errors import Forbidden
from tiphys_apiserver.admission.answered import AdmittedAnswerer
from tiphys_apiserver.admission.chain import AdmissionChain
from tiphys_apiserver.admission.plugins.node_restriction import NodeRestriction
from tiphys_apiserver.authentication.interface import UserInfo

KUBELET = UserInfo("system:node:a", groups=("system:nodes",))


class Echo:
    """Answers with what it is given."""

    async def create(self, user: UserInfo, obj: Any, *, namespace: str, name: str) -> Any:
        return obj


async def test_H10_kubelet_gets_no_token_that_is_not_bound_to_a_pod() -> None:
    chain = AdmissionChain([], [NodeRestriction(FakeObjects())])
    tokens = AdmittedAnswerer(Echo(), chain, info_of(ServiceAccount), "token")
    request = TokenRequest()
    assert await tokens.create(ANN, request, namespace="web", name="default") is request
    with pytest.raises(Forbidden, match="node requested token not bound to a pod"):
        await tokens.create(KUBELET, request, namespace="web", name="default")
