"""Which Kubernetes the components speak, and which release they are of."""

from __future__ import annotations

from functools import cache
from importlib import metadata

API_MAJOR, API_MINOR = "1", "34"
KUBERNETES_VERSION = f"{API_MAJOR}.{API_MINOR}"


@cache
def git_version() -> str:
    """The version as Kubernetes writes its own, v1.34.0+tiphys.0.1.0; read from the installed package."""
    return f"v{KUBERNETES_VERSION}.0+tiphys.{metadata.version('tiphys-component')}"
