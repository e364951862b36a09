"""A kubelet on a real containerd with short paths; without a GPU, tests that need one are left out."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.kubelet.conftest import containerd, end_pods
from tests.support.containerd import ContainerdNode
from tests.support.kubelet import RunningKubelet, running_kubelet

__all__ = ["containerd"]
_NUMBERS = itertools.count()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects what needs a GPU where there is none: a skip would fail in CI, which has none to install."""
    if Path("/dev/nvidiactl").exists():
        return
    without = [item for item in items if item.get_closest_marker("gpu")]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


@pytest.fixture
def root(containerd: ContainerdNode) -> Path:
    """A directory for a kubelet's own things with a short name; mounts below it end with containerd's."""
    path = containerd.root / f"d{next(_NUMBERS)}"
    path.mkdir(parents=True)
    return path


@pytest.fixture
async def kubelet(containerd: ContainerdNode, root: Path) -> AsyncIterator[RunningKubelet]:
    """A kubelet at work."""
    try:
        async with running_kubelet(containerd, root) as running:
            yield running
    finally:
        await end_pods(containerd)
