"""Which of a pod's addresses a slice has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_controller_manager.backends import IPV4, IPV6, address
from tiphys_controller_manager.pods import pod_view


@pytest.mark.parametrize(
    ("ips", "family", "chosen"),
    [
        pytest.param(("10.1.0.2", "fd00::2"), IPV4, "10.1.0.2", id="IPv4 of two"),
        pytest.param(("10.1.0.2", "fd00::2"), IPV6, "fd00::2", id="IPv6 of two"),
        pytest.param(("::ffff:10.1.0.2",), IPV4, None, id="an IPv4 address written as one of IPv6 is one of IPv6"),
        pytest.param(("10.1.0.2",), IPV6, None, id="none of the family"),
        pytest.param((), IPV4, None, id="none yet"),
    ],
)
def test_a_slice_takes_the_pods_address_of_its_family(ips: tuple[str, ...], family: str, chosen: str | None) -> None:
    assert address(replace(pod_view(Pod()), ips=ips), family) == chosen
