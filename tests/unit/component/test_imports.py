"""What importing the shared rooms must not do."""

import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, importlib, os, pkgutil, sys
import tiphys_component, tiphys_client
for package in (tiphys_component, tiphys_client):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.slow
def test_importing_starts_no_thread_so_that_the_zygote_may_fork() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "1"
