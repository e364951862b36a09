"""Metrics and health over HTTP."""

import aiohttp
import pytest

from tiphys_component.app import StartupError
from tiphys_component.health import Health, NotReady
from tiphys_component.metrics import Registry
from tiphys_component.status_server import listening


async def _get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as reply:
        return reply.status, await reply.text()


async def test_metrics_are_rendered_without_creation_times() -> None:
    registry = Registry()
    registry.counter("apiserver_request_total", "Requests", ["verb"]).labels("GET").inc()
    registry.histogram("work_seconds", "Work", buckets=(1, 2)).observe(1.5)
    registry.gauge_function("depth", "Depth", lambda: 7)
    async with listening("127.0.0.1", 0, registry, Health()) as port:
        status, text = await _get(port, "/metrics")
    assert status == 200
    assert 'apiserver_request_total{verb="GET"} 1.0' in text
    assert 'work_seconds_bucket{le="2.0"} 1.0' in text
    assert "depth 7.0" in text
    assert "_created" not in text


def test_two_registries_do_not_share() -> None:
    one, two = Registry(), Registry()
    one.counter("a_total", "A").inc()
    two.counter("a_total", "A")
    assert (one.value("a_total"), two.value("a_total")) == (1.0, 0.0)


async def test_readiness_follows_its_gate_and_liveness_does_not() -> None:
    health = Health()
    health.add_liveness("ping", lambda: None)
    open_gate = health.gate("synced")
    async with listening("127.0.0.1", 0, Registry(), health) as port:
        assert (await _get(port, "/livez")) == (200, "ok")
        status, text = await _get(port, "/readyz")
        assert status == 500
        assert text == "[+]ping ok\n[-]synced failed: not yet\nreadyz check failed\n"
        open_gate()
        assert (await _get(port, "/readyz")) == (200, "ok")
        assert (await _get(port, "/readyz?verbose"))[1].endswith("readyz check passed\n")


async def test_asynchronous_check_reports_its_reason() -> None:
    health = Health()

    async def check() -> None:
        raise NotReady("store is gone")

    health.add_liveness("store", check)
    assert [(v.name, v.problem) for v in await health.live()] == [("store", "store is gone")]


async def test_port_in_use_names_address_and_flag() -> None:
    async with listening("127.0.0.1", 0, Registry(), Health()) as port:
        with pytest.raises(StartupError, match="--metrics-bind-address") as refused:
            async with listening("127.0.0.1", port, Registry(), Health()):
                pass
    assert f"127.0.0.1:{port} is in use" in refused.value.message


def test_taken_name_is_refused() -> None:
    health = Health()
    health.add_liveness("ping", lambda: None)
    with pytest.raises(ValueError, match="ping exists"):
        health.add_readiness("ping", lambda: None)


def test_J5_quick_histogram_shows_what_prometheus_client_would() -> None:
    quick, plain = Registry(), Registry()
    values = (0.0, 0.005, 0.0051, 1.0, 7.0)
    mine = quick.quick_histogram("took_seconds", "How long it took.", ("who",), (0.005, 1.0, 2.5)).labels("a")
    theirs = plain.histogram("took_seconds", "How long it took.", ("who",), (0.005, 1.0, 2.5)).labels("a")
    for value in values:
        mine.observe(value)
        theirs.observe(value)
    assert quick.render() == plain.render()


def test_J5_quick_histogram_has_a_series_for_each_set_of_labels() -> None:
    registry = Registry()
    family = registry.quick_histogram("took_seconds", "How long it took.", ("who",), (1.0,))
    family.labels("a").observe(0.5)
    assert family.labels("a") is family.labels("a")
    family.labels("b").observe(2.0)
    assert registry.value("took_seconds_bucket", who="a", le="1.0") == 1
    assert registry.value("took_seconds_bucket", who="b", le="1.0") == 0
    assert registry.value("took_seconds_count", who="b") == 1
    family.clear()
    assert registry.value("took_seconds_count", who="b") is None
