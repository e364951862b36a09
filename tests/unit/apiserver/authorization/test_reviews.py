"""Access reviews."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import build
from tiphys.api.authorization.v1 import authorization_pb2 as v1
from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes, Decision, Verdict
from tiphys_apiserver.authorization.reviews import (
    SelfSubjectAccessReviews,
    SelfSubjectRulesReviews,
    SubjectAccessReviews,
)
from tiphys_apiserver.authorization.union import AlwaysAllow

ANN = UserInfo("ann", groups=("dev",))


class Recorder:
    """Allows what ann asks, and remembers the question."""

    question: Attributes

    async def authorize(self, attributes: Attributes) -> Decision:
        self.question = attributes
        return Decision(Verdict.ALLOW if attributes.user.name == "ann" else Verdict.DENY, "so it is")


async def test_subject_review_judges_the_user_it_names() -> None:
    recorder = Recorder()
    spec = {"user": "bob", "groups": ["g"], "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "n"}}
    answer: Any = await SubjectAccessReviews(recorder).create(ANN, build(v1.SubjectAccessReview, spec=spec))
    assert recorder.question.user == UserInfo("bob", groups=("g",))
    assert (answer.status.allowed, answer.status.denied, answer.status.reason) == (False, True, "so it is")


async def test_self_review_judges_the_caller() -> None:
    spec = {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}
    recorder = Recorder()
    answer: Any = await SelfSubjectAccessReviews(recorder).create(ANN, build(v1.SelfSubjectAccessReview, spec=spec))
    assert answer.status.allowed
    assert (recorder.question.path, recorder.question.is_resource_request) == ("/metrics", False)


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        pytest.param({"user": "x"}, 422, id="nothing asked"),
        pytest.param({"resourceAttributes": {"verb": "get"}}, 422, id="nobody"),
        pytest.param({"user": "x", "resourceAttributes": {}, "nonResourceAttributes": {}}, 422, id="both"),
    ],
)
async def test_incomplete_review_is_invalid(spec: dict[str, Any], code: int) -> None:
    with pytest.raises(APIError) as refused:
        await SubjectAccessReviews(AlwaysAllow()).create(ANN, build(v1.SubjectAccessReview, spec=spec))
    assert refused.value.code == code


async def test_local_review_is_about_its_own_namespace() -> None:
    spec = {"user": "x", "resourceAttributes": {"namespace": "other"}}
    review = build(v1.LocalSubjectAccessReview, spec=spec)
    with pytest.raises(APIError) as refused:
        await SubjectAccessReviews(AlwaysAllow()).create(ANN, review, namespace="mine")
    assert refused.value.code == 400


async def test_rules_review_lists_rules() -> None:
    review = build(v1.SelfSubjectRulesReview, spec={"namespace": "n"})
    answer: Any = await SelfSubjectRulesReviews(AlwaysAllow()).create(ANN, review)
    assert [list(rule.verbs) for rule in answer.status.resourceRules] == [["*"]]
    assert [list(rule.nonResourceURLs) for rule in answer.status.nonResourceRules] == [["*"]]
