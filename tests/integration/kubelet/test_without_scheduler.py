"""What works while no scheduler does: there is none in these tests at all."""

from __future__ import annotations

import pytest

from tests.support.kubelet import RunningKubelet, is_running, make_pod

pytestmark = pytest.mark.containerd


async def test_C6_a_pod_that_names_its_node_runs_there(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("named"))
    pod = await kubelet.until("named", is_running)
    assert pod.spec.nodeName == "node-1"


async def test_C12_a_deleted_pod_ends_on_its_node(kubelet: RunningKubelet) -> None:
    pod = make_pod("going")
    await kubelet.create(pod)
    await kubelet.until("going", is_running)
    await kubelet.client.delete(type(pod), "going", "default")
    await kubelet.until_gone("going")
