"""What /version says, and the release that documents name."""

from __future__ import annotations

import platform
from typing import Any

from tiphys_apiserver import version as package

# The Kubernetes whose API is spoken.
MAJOR, MINOR = "1", "34"
GIT_VERSION = f"v{MAJOR}.{MINOR}.0+tiphys.{package.VERSION}"


def version_document() -> dict[str, Any]:
    """The body of /version: apimachinery's version.Info."""
    return {
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": str(int(MINOR) - 1),
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": package.BUILD_DATE,
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{_machine()}",
    }


def _machine() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
