"""The masquerading table."""

from __future__ import annotations

from tiphys_cni.masquerade import rule_set, table_name


def test_table_is_replaced_as_a_whole() -> None:
    text = rule_set("pod-net", ("10.1.0.0/24",))
    assert text.startswith("table inet cni_pod_net\ndelete table inet cni_pod_net\n")


def test_traffic_inside_the_subnet_keeps_its_source() -> None:
    assert "ip saddr 10.1.0.0/24 ip daddr != 10.1.0.0/24 ip daddr != 224.0.0.0/4 masquerade" in rule_set(
        "n", ("10.1.0.0/24",)
    )


def test_names_are_made_fit_for_nft() -> None:
    assert table_name("a.b-c") == "cni_a_b_c"
