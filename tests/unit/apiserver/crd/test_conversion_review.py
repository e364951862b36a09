"""ConversionReview: what a webhook is sent, and which answers are taken."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tiphys_apiserver.crd.conversion_review import BadConversion, converted, question

ASKED: list[dict[str, Any]] = [
    {"apiVersion": "a.io/v1", "kind": "Thing", "metadata": {"name": name, "uid": f"u-{name}", "labels": {"a": "b"}}}
    for name in ("one", "two")
]
MADE = [{**obj, "apiVersion": "a.io/v2", "spec": {"n": 1}} for obj in ASKED]


def review(**response: Any) -> dict[str, Any]:
    response = {"uid": "u", "result": {"status": "Success"}, "convertedObjects": MADE, **response}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response}


def read(answer: Any) -> list[dict[str, Any]]:
    body = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    return converted(body, ASKED, "a.io/v2", "u")


def altered(**metadata: Any) -> dict[str, Any]:
    first = {**MADE[0], "metadata": {**ASKED[0]["metadata"], **metadata}}
    return review(convertedObjects=[first, MADE[1]])


def test_A39_the_question_names_the_version_that_is_wanted() -> None:
    asked = orjson.loads(question(ASKED, "a.io/v2", "u"))
    assert (asked["apiVersion"], asked["kind"]) == ("apiextensions.k8s.io/v1", "ConversionReview")
    assert asked["request"] == {"uid": "u", "desiredAPIVersion": "a.io/v2", "objects": ASKED}


def test_A39_a_good_answer_is_taken() -> None:
    assert read(review()) == MADE


def test_A39_labels_are_the_webhooks_and_all_else_of_metadata_is_kept() -> None:
    [first, _] = read(altered(labels={"new": "x"}, finalizers=["no"], annotations=None))
    assert first["metadata"] == {"name": "one", "uid": "u-one", "labels": {"new": "x"}}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(b"nonsense", "is not JSON", id="garbage"),
        pytest.param([], "expected webhook response of", id="list"),
        pytest.param({**review(), "kind": "Other"}, "got apiextensions.k8s.io/v1, Kind=Other", id="kind"),
        pytest.param({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}, "no response", id="empty"),
        pytest.param(review(uid="x"), "expected response.uid='u', got 'x'", id="uid"),
        pytest.param(review(result={"status": "Failure", "message": "not me"}), "^not me$", id="failure"),
        pytest.param(review(result=None), "result.status was None, not 'Success'", id="no result"),
        pytest.param(review(convertedObjects=MADE[:1]), "returned 1 objects, expected 2", id="too few"),
        pytest.param(review(convertedObjects=None), "returned 0 objects, expected 2", id="none"),
        pytest.param(review(convertedObjects=MADE[::-1]), "index 0: must have the same name", id="order"),
        pytest.param(review(convertedObjects=ASKED), "index 0: invalid apiVersion 'a.io/v1'", id="version"),
        pytest.param(review(convertedObjects=[1, 2]), "index 0: is no object", id="number"),
        pytest.param(
            review(convertedObjects=[{**MADE[0], "kind": "Other"}, MADE[1]]), "must have the same kind", id="other kind"
        ),
        pytest.param(
            review(convertedObjects=[{**MADE[0], "metadata": None}, MADE[1]]), "missing metadata", id="no metadata"
        ),
        pytest.param(altered(uid="other"), "must have the same uid", id="other uid"),
        pytest.param(altered(namespace="other"), "must have the same namespace", id="other namespace"),
        pytest.param(altered(labels={"a": 1}), r"invalid metadata\.labels", id="labels"),
    ],
)
def test_A39_other_answers_are_refused(answer: Any, words: str) -> None:
    with pytest.raises(BadConversion, match=words):
        read(answer)
