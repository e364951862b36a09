"""Requests made from the documents that the server itself publishes: what they allow is answered, and never with 500.

schemathesis makes them; some operations in `make test`, other ones each time, and all of them in `make test-long`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from tests.support import chance
from tests.support.threaded_server import server_in_a_thread

# What the server may say of kubelets and pods behind it, of which there are none here.
_OF_OTHERS = (501, 502, 503, 504)
_HANGS_S = 30.0


def documents(url: str) -> Iterator[tuple[str, Any]]:
    """Each group-version's document, by its path."""
    index = requests.get(f"{url}/openapi/v3", timeout=_HANGS_S).json()
    for path, place in sorted(index["paths"].items()):
        if path.startswith(("api/", "apis/")) and path.count("/") > path.startswith("apis/"):
            yield path, requests.get(url + place["serverRelativeURL"], timeout=_HANGS_S).json()


def operations(document: Any) -> list[Any]:
    """All operations of a document; one that can't be read fails."""
    found = []
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(result, Ok), result
        found.append(result.ok())
    return found


def probe(url: str, operation: Any, examples: int) -> None:
    """Some requests that the document allows for one operation."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        wanted = case.as_transport_kwargs(base_url=url)
        with _sent(wanted) as answer:
            code = answer.status_code
            assert code < 500 or code in _OF_OTHERS, f"{code}: {str(wanted)[:3000]}\n{answer.text[:1000]}"

    send()


@contextmanager
def _sent(wanted: dict[str, Any]) -> Iterator[requests.Response]:
    # A watch would go on for ever: the head is enough.
    with requests.request(timeout=_HANGS_S, stream=True, **wanted) as answer:
        yield answer


def test_A41_what_the_documents_allow_is_answered() -> None:
    rng = chance.rng("operations")
    with server_in_a_thread() as url:
        published = dict(documents(url))
        assert {"api/v1", "apis/apps/v1", "apis/rbac.authorization.k8s.io/v1"} <= set(published)
        for path in ("api/v1", rng.choice(sorted(set(published) - {"api/v1"}))):
            found = operations(published[path])
            for operation in rng.sample(found, min(8, len(found))):
                probe(url, operation, 3)
        assert requests.get(f"{url}/readyz", timeout=_HANGS_S).status_code == 200


@pytest.mark.slow
def test_A41_all_that_the_documents_allow_is_answered() -> None:
    with server_in_a_thread() as url:
        for _, document in documents(url):
            for operation in operations(document):
                probe(url, operation, 5)
        assert requests.get(f"{url}/readyz", timeout=_HANGS_S).status_code == 200
