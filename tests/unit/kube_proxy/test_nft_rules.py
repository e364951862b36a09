"""The nftables rule set, and the text that takes the kernel from one to the next."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tiphys_kube_proxy.nft_rules import Settings, endpoint_chain, rule_set, service_chain
from tiphys_kube_proxy.ruleset import RuleSet, change, replace_all
from tiphys_kube_proxy.service_map import Endpoint, Endpoints, ServicePort

ENDPOINTS = (Endpoint("10.1.0.2", 8080), Endpoint("10.1.0.3", 8080, is_local=True))
PORT = ServicePort(
    namespace="default",
    name="web",
    port_name="http",
    protocol="tcp",
    port=80,
    cluster_ips=("10.96.0.9",),
    node_port=0,
    external_ips=(),
    affinity_s=0,
    internal_local=False,
    external_local=False,
    endpoints=Endpoints(ENDPOINTS, (ENDPOINTS[1],)),
)


def rules(*ports: ServicePort, cluster_cidr: str = "") -> RuleSet:
    return rule_set(ports, Settings(cluster_cidr=cluster_cidr))


def test_address_and_port_lead_straight_to_the_service() -> None:
    assert rules(PORT).maps["service-ips"].elements == {"10.96.0.9 . tcp . 80": f"goto {service_chain(PORT)}"}


def test_each_endpoint_is_as_likely() -> None:
    found = rules(PORT).chains[service_chain(PORT)].rules
    first, second = (endpoint_chain(PORT, e) for e in ENDPOINTS)
    assert found == (f"numgen random mod 2 vmap {{ 0 : goto {first}, 1 : goto {second} }}",)


def test_hairpin_traffic_is_masqueraded() -> None:
    chain = rules(PORT).chains[endpoint_chain(PORT, ENDPOINTS[0])]
    assert chain.rules[0] == "ip saddr 10.1.0.2 jump mark-for-masquerade"
    assert chain.rules[-1] == "meta l4proto tcp dnat to 10.1.0.2:8080"


def test_a_service_without_endpoints_rejects() -> None:
    found = rules(replace(PORT, endpoints=Endpoints(), node_port=30080))
    assert found.maps["no-endpoint-services"].elements == {"10.96.0.9 . tcp . 80": "goto reject-chain"}
    assert found.maps["no-endpoint-nodeports"].elements == {"tcp . 30080": "goto reject-chain"}
    assert found.maps["service-ips"].elements == {}


def test_G17_local_policy_without_local_endpoint_drops() -> None:
    port = replace(PORT, node_port=30080, external_local=True, endpoints=Endpoints(ENDPOINTS[:1], ()))
    assert rules(port).maps["no-endpoint-nodeports"].elements == {"tcp . 30080": "drop"}


def test_G17_local_policy_keeps_the_source() -> None:
    port = replace(PORT, node_port=30080, external_local=True)
    chains = rules(port).chains
    external = next(c for name, c in chains.items() if name.startswith("external-"))
    assert "jump mark-for-masquerade" not in external.rules


def test_G11_node_ports_are_masqueraded_otherwise() -> None:
    chains = rules(replace(PORT, node_port=30080)).chains
    external = next(c for name, c in chains.items() if name.startswith("external-"))
    assert external.rules[0] == "jump mark-for-masquerade"


def test_sources_outside_the_cluster_are_masqueraded() -> None:
    found = rules(PORT, cluster_cidr="10.1.0.0/16").chains[service_chain(PORT)].rules[0]
    assert found == "ip daddr 10.96.0.9 tcp dport 80 ip saddr != 10.1.0.0/16 jump mark-for-masquerade"


def test_the_other_family_is_passed_over() -> None:
    assert rules(replace(PORT, cluster_ips=("fd00::9",))).maps["service-ips"].elements == {}


def test_nothing_is_written_when_nothing_changed() -> None:
    assert change(rules(PORT), rules(PORT)) == ""


def test_one_more_endpoint_touches_one_service_only() -> None:
    other = replace(PORT, name="other", cluster_ips=("10.96.0.10",))
    grown = replace(PORT, endpoints=Endpoints((*ENDPOINTS, Endpoint("10.1.0.4", 8080)), ()))
    text = change(rules(PORT, other), rules(grown, other))
    assert service_chain(PORT) in text
    assert service_chain(other) not in text


def test_affinity_survives_a_change_of_endpoints() -> None:
    sticky = replace(PORT, affinity_s=60)
    grown = replace(sticky, endpoints=Endpoints((*ENDPOINTS, Endpoint("10.1.0.4", 8080)), ()))
    text = change(rules(sticky), rules(grown))
    assert "delete set" not in text
    assert text.count("add set") == 1


_ENDPOINT = st.builds(Endpoint, st.integers(2, 5).map(lambda i: f"10.1.0.{i}"), st.just(80))
_PORT = st.builds(
    lambda name, endpoints, node_port, affinity: replace(
        PORT,
        name=name,
        cluster_ips=(f"10.96.0.{ord(name)}",),
        endpoints=Endpoints(tuple(sorted(set(endpoints))), ()),
        node_port=node_port and 30000 + ord(name),
        affinity_s=affinity,
    ),
    st.sampled_from("abc"),
    st.lists(_ENDPOINT, max_size=3),
    st.sampled_from([0, 1]),
    st.sampled_from([0, 60]),
)
_PORTS = st.lists(_PORT, max_size=3, unique_by=lambda p: p.name)


@given(before=_PORTS, after=_PORTS)
def test_every_chain_that_anything_leads_to_exists(before: list[ServicePort], after: list[ServicePort]) -> None:
    for found in (rules(*before), rules(*after)):
        text = replace_all(found)
        targets = {word for line in text.split("\n") for word in _targets(line)}
        assert targets <= set(found.chains)


def _targets(line: str) -> list[str]:
    words = line.replace(",", " ").split()
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("goto", "jump")]
