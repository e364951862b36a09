"""tiphys get: moments as people write them, kinds as kubectl takes them, and its table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tiphys_cli.get import find_resource, read_moment, table_lines

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [
        pytest.param("10 min ago", 600, id="minutes"),
        pytest.param("90s ago", 90, id="no space"),
        pytest.param("2 hours ago", 7200, id="plural"),
        pytest.param("2026-01-31T11:59:00Z", 60, id="calendar"),
        pytest.param("2026-01-31T12:59:00+01:00", 60, id="other zone"),
    ],
)
def test_A57_moment_is_read(text: str, ago_s: float) -> None:
    assert read_moment(text, NOW) == NOW - timedelta(seconds=ago_s)


@pytest.mark.parametrize("text", ["", "yesterday", "10 parsecs ago", "-5 min ago"])
def test_no_moment_is_refused_with_what_was_written(text: str) -> None:
    with pytest.raises(ValueError, match=f"--at {text!r} is no moment"):
        read_moment(text, NOW)


def document(group: str, version: str, plural: str, kind: str, *short: str) -> dict[str, object]:
    resource = {
        "resource": plural,
        "singularResource": kind.lower(),
        "shortNames": list(short),
        "responseKind": {"kind": kind},
        "scope": "Namespaced",
    }
    return {"items": [{"metadata": {"name": group}, "versions": [{"version": version, "resources": [resource]}]}]}


@pytest.mark.parametrize(
    ("word", "bases"),
    [
        pytest.param("pods", ["/api/v1"], id="plural"),
        pytest.param("po", ["/api/v1"], id="short"),
        pytest.param("Event", ["/api/v1", "/apis/events.k8s.io/v1"], id="kind of two groups"),
        pytest.param("events.events.k8s.io", ["/apis/events.k8s.io/v1"], id="with group"),
        pytest.param("nothing", [], id="unknown"),
    ],
)
def test_kind_is_found_as_kubectl_finds_it(word: str, bases: list[str]) -> None:
    documents = [
        document("", "v1", "pods", "Pod", "po"),
        document("", "v1", "events", "Event", "ev"),
        document("events.k8s.io", "v1", "events", "Event", "ev"),
    ]
    assert [base for base, _ in find_resource(word, documents)] == bases


def test_table_shows_the_columns_that_kubectl_shows() -> None:
    table = {
        "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
        "rows": [{"cells": ["web", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "shop"}}}],
    }
    assert list(table_lines(table, with_namespace=False)) == ["NAME   READY", "web    1/1"]
    assert list(table_lines(table, with_namespace=True)) == ["NAMESPACE   NAME   READY", "shop        web    1/1"]
