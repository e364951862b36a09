"""The rules that hide pods on their way out."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from tiphys_cni.flannel.masquerade import is_ours, rule_set
from tiphys_cni.netlink import attribute


def test_only_what_leaves_the_network_is_hidden_and_the_table_is_never_deleted() -> None:
    text = rule_set(IPv4Network("10.244.0.0/16"))
    assert "ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade" in text
    assert "delete" not in text


@pytest.mark.parametrize(("name", "ours"), [("flannel-ipv4", True), ("kube-proxy", False), ("flannel-ipv40", False)])
def test_table_of_a_message(name: str, ours: bool) -> None:
    assert is_ours(b"\2\0\0\0" + attribute(1, name.encode() + b"\0")) is ours
