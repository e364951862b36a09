"""A server that answers, and the kubeconfig that every library is given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.apiserver import RunningServer, running_server


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    async with running_server() as found:
        yield found


@pytest.fixture
def configuration(server: RunningServer) -> dict[str, Any]:
    """A kubeconfig's content: the administrator by certificate."""
    folder = server.pki.folder
    address = f"https://127.0.0.1:{server.api.secure_port}"
    cluster = {"server": address, "certificate-authority": str(folder / "ca.crt")}
    user = {"client-certificate": str(folder / "admin.crt"), "client-key": str(folder / "admin.key")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "current-context": "x",
    }


@pytest.fixture
def kubeconfig(configuration: dict[str, Any], tmp_path: Path) -> Path:
    """The same as a file."""
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(configuration))
    return path
