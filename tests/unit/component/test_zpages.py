"""The pages for people: what runs, and with which flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tiphys_component.clock import FakeClock
from tiphys_component.health import Health
from tiphys_component.metrics import Registry
from tiphys_component.options import LogOptions, flag
from tiphys_component.status_server import listening
from tiphys_component.zpages import ZPages


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """Options of a test."""

    bind_address: tuple[str, ...] = flag("--bind-address", default=("127.0.0.1", "::1"), help="where")
    cert: Path | None = flag("--cert", "--tls-cert", default=None, help="certificate")
    client_secret: str = flag("--client-secret", default="hush", help="secret itself")
    client_secret_file: Path = flag("--client-secret-file", default=Path("/etc/secret"), help="file of a secret")
    verbose: bool = flag("--verbose", default=True, help="more")
    limits: Mapping[str, str] = flag("--limits", default={"b": "2", "a": "1"}, help="limits")


def test_J12_statusz_tells_what_runs_and_since_when() -> None:
    clock = FakeClock()
    pages = ZPages("kube-something", Options(), clock=clock, paths={"metrics": "/metrics"})
    clock.advance(3725)
    text = pages.statusz()
    assert text.startswith("\nkube-something statusz\nWarning: This endpoint is not meant to be machine parseable")
    assert f"Started: {FakeClock().now():%a %b %e %H:%M:%S UTC %Y}\nUp: 1 hr 02 min 05 sec\n" in text
    assert "Emulation version: 1.34\n" in text
    assert text.endswith("flagz: /flagz\nmetrics: /metrics\n")


def test_J12_flagz_shows_every_flag_and_no_secret() -> None:
    text = ZPages("kube-something", Options(log_level="debug")).flagz()
    assert text.split("\n\n", 1)[1].splitlines() == [
        "bind-address=127.0.0.1,::1",
        "cert=",
        "client-secret-file=/etc/secret",
        "client-secret=[redacted]",
        "limits=a=1,b=2",
        "log-format=text",
        "log-level=debug",
        "verbose=true",
    ]


async def test_J12_pages_stand_beside_metrics_and_health() -> None:
    pages = ZPages("kube-something", Options())
    async with (
        listening("127.0.0.1", 0, Registry(), Health(), pages=pages) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for path in ("statusz", "flagz"):
            async with session.get(f"/{path}") as reply:
                assert (reply.status, reply.content_type) == (200, "text/plain")
                assert f"kube-something {path}" in await reply.text()
