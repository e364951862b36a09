"""The authorization webhook: what it is asked, how long it is believed, and what its silence means."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authentication.review_client import ReviewFailed
from tiphys_apiserver.authorization.interface import Attributes, Verdict
from tiphys_apiserver.authorization.webhook import WebhookAuthorizer
from tiphys_component.clock import FakeClock

_ANN = UserInfo("ann", "7", ("dev",), {"team": ("a",)})
_QUESTION = Attributes(
    _ANN, "get", True, path="/api/v1/x", api_version="v1", resource="pods", subresource="log", namespace="x", name="p"
)


class _Reviewer:
    def __init__(self, status: dict[str, Any] | None) -> None:
        self.status = status
        self.asked: list[dict[str, Any]] = []

    async def post(self, review: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(review)
        if self.status is None:
            raise ReviewFailed("down")
        return {"status": self.status}


def _authorizer(reviewer: _Reviewer, clock: FakeClock, version: str = "v1") -> WebhookAuthorizer:
    return WebhookAuthorizer(reviewer, clock, version=version, allowed_ttl_s=300.0, refused_ttl_s=30.0)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        pytest.param({"allowed": True}, Verdict.ALLOW, id="allowed"),
        pytest.param({"allowed": False}, Verdict.NO_OPINION, id="not allowed"),
        pytest.param({"allowed": False, "denied": True}, Verdict.DENY, id="denied"),
        pytest.param({"allowed": True, "denied": True}, Verdict.DENY, id="both"),
        pytest.param(None, Verdict.NO_OPINION, id="no answer"),
    ],
)
async def test_answer_becomes_a_verdict(status: dict[str, Any] | None, verdict: Verdict) -> None:
    decision = await _authorizer(_Reviewer(status), FakeClock()).authorize(_QUESTION)

    assert decision.verdict is verdict


@pytest.mark.parametrize(("version", "groups"), [("v1", "groups"), ("v1beta1", "group")])
async def test_question_is_a_subject_access_review(version: str, groups: str) -> None:
    reviewer = _Reviewer({"allowed": True})
    await _authorizer(reviewer, FakeClock(), version).authorize(_QUESTION)

    assert reviewer.asked[0] == {
        "apiVersion": f"authorization.k8s.io/{version}",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "ann",
            "uid": "7",
            groups: ["dev"],
            "extra": {"team": ["a"]},
            "resourceAttributes": {
                "verb": "get",
                "version": "v1",
                "resource": "pods",
                "subresource": "log",
                "namespace": "x",
                "name": "p",
            },
        },
    }


@pytest.mark.parametrize(("allowed", "kept_s"), [(True, 300), (False, 30)])
async def test_yes_is_kept_longer_than_no(allowed: bool, kept_s: int) -> None:
    reviewer, clock = _Reviewer({"allowed": allowed}), FakeClock()
    authorizer = _authorizer(reviewer, clock)
    await authorizer.authorize(_QUESTION)
    clock.advance(kept_s - 1)
    await authorizer.authorize(_QUESTION)
    assert len(reviewer.asked) == 1

    clock.advance(2)
    await authorizer.authorize(_QUESTION)
    assert len(reviewer.asked) == 2


async def test_silence_is_not_kept() -> None:
    reviewer = _Reviewer(None)
    authorizer = _authorizer(reviewer, FakeClock())
    await authorizer.authorize(_QUESTION)
    reviewer.status = {"allowed": True}

    assert (await authorizer.authorize(_QUESTION)).allowed
