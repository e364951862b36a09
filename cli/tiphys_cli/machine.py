"""What the command knows of the machine from its environment."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tiphys_cluster.choices import Machine

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy")


def read_machine(run_root: Path) -> Machine:
    """This machine, with the proxy that the environment names."""
    proxy_url = next((os.environ[name] for name in _PROXY_VARIABLES if os.environ.get(name)), "")
    return replace(Machine(), run_root=run_root, proxy_url=proxy_url)
