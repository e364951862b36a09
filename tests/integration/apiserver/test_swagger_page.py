"""The page of all operations: whole, and of this server alone."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from tests.support.apiserver import RunningServer, running_server
from tests.support.ports import free_port


async def test_A42_the_page_loads_with_everything_it_names_and_nothing_from_outside(server: RunningServer) -> None:
    page = await server.http("GET", "/swagger-ui/")
    assert (page.status, page.header("Content-Type")) == (200, ["text/html; charset=utf-8"])
    assert "default-src 'self'" in page.header("Content-Security-Policy")[0]
    named = re.findall(r'(?:href|src)="([^"]+)"', page.body.decode())
    assert len(named) >= 6
    for link in named:
        assert "//" not in link
        part = await server.http("GET", f"/swagger-ui/{link.removeprefix('./')}")
        assert part.status == 200, link
        assert len(part.body) > 100, link


async def test_A42_the_page_reads_this_servers_operations(server: RunningServer) -> None:
    script = (await server.http("GET", "/swagger-ui/swagger-initializer.js")).body.decode()
    (url,) = re.findall(r'url: "([^"]+)"', script)
    document = (await server.http("GET", url)).json()
    operations = document["paths"]["/api/v1/namespaces/{namespace}/pods"]
    assert {"get", "post", "delete"} <= operations.keys()
    assert "http" not in script


async def test_A42_without_the_slash_it_leads_to_the_page(server: RunningServer) -> None:
    reply = await server.http("GET", "/swagger-ui")
    assert (reply.status, reply.header("Location")) == (301, ["/swagger-ui/"])
    assert "/swagger-ui/" in (await server.http("GET", "/")).json()["paths"]


@pytest.mark.parametrize("name", ["../__init__.py", "%2e%2e/%2e%2e/__init__.py", "index.j2", "swagger-ui.js.map"])
async def test_A42_other_files_of_the_package_are_not_served(server: RunningServer, name: str) -> None:
    assert (await server.http("GET", f"/swagger-ui/{name}")).status == 404


async def test_A42_the_page_is_for_those_who_may_read_it(server: RunningServer) -> None:
    assert (await server.http("GET", "/swagger-ui/", user="alice")).status == 403


async def test_A42_a_browser_shows_the_operations_on_pods_without_an_outside_download(tmp_path: Path) -> None:
    """Headless Chromium, for which no other host exists; the tag of the core group is opened by the address."""
    browser = shutil.which("chromium")
    assert browser is not None, "apt-get install chromium"
    port, picture = free_port(), tmp_path / "page.png"
    async with running_server(insecure_port=port) as server:
        assert (await server.http("GET", "/openapi/v2")).status == 200
        process = await asyncio.create_subprocess_exec(
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            "--virtual-time-budget=120000",
            "--window-size=1200,2000",
            f"--screenshot={picture}",
            "--dump-dom",
            f"http://127.0.0.1:{port}/swagger-ui/#/api_v1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(120):
            page = (await process.communicate())[0].decode()
    shown = set(re.findall(r'data-path="([^"]+)"', page))
    assert {"/api/v1/namespaces/{namespace}/pods", "/api/v1/namespaces/{namespace}/pods/{name}/log"} <= shown
    # A page without anything on it is some 10 KB.
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 40_000
