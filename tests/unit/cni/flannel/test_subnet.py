"""subnet.env."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tiphys_cni.flannel.subnet import SubnetEnv, SubnetFileError, parse, read

ENV = SubnetEnv.of(IPv4Network("10.244.0.0/16"), IPv4Network("10.244.3.0/24"), mtu=1450, ip_masq=True)


def test_text_is_upstreams() -> None:
    assert ENV.text() == (
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )


def test_file_is_written_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "flannel" / "subnet.env"
    assert ENV.write(path)
    assert not ENV.write(path)
    assert read(path) == ENV
    assert [found.name for found in path.parent.iterdir()] == ["subnet.env"]


def test_lines_of_others_are_passed_over() -> None:
    assert parse(ENV.text() + "\n# a note\nFLANNEL_IPV6_NETWORK=fd00::/48\n") == ENV


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("FLANNEL_MTU=1450\n", "", "FLANNEL_MTU"),
        ("1450", "much", "much"),
        ("10.244.3.1/24", "here", "here"),
        ("=true", "=perhaps", "perhaps"),
    ],
    ids=["missing", "no number", "no address", "no boolean"],
)
def test_what_can_not_be_used_is_named(old: str, new: str, names: str) -> None:
    with pytest.raises(SubnetFileError, match=names):
        parse(ENV.text().replace(old, new))
