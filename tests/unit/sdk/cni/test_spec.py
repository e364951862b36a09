"""Results and errors in every version of the specification."""

from __future__ import annotations

import pytest

from tiphys_sdk.cni.spec import (
    SUPPORTED_VERSIONS,
    Address,
    CNIError,
    ErrorCode,
    Interface,
    Result,
    Route,
)

RESULT = Result(
    interfaces=(Interface("cni0", "02:00:00:00:00:01"), Interface("eth0", "02:00:00:00:00:02", "/run/netns/a", 1450)),
    ips=(Address("10.1.0.5/24", "10.1.0.1", 1), Address("fd00::5/64", "fd00::1", 1)),
    routes=(Route("0.0.0.0/0", "10.1.0.1"),),
)


def test_version_1_1_has_mtu_and_no_ip_version() -> None:
    found = RESULT.to_json("1.1.0")
    assert found["interfaces"][1]["mtu"] == 1450
    assert "version" not in found["ips"][0]


def test_version_1_0_has_neither() -> None:
    found = RESULT.to_json("1.0.0")
    assert "mtu" not in found["interfaces"][1]
    assert found["ips"][0] == {"interface": 1, "address": "10.1.0.5/24", "gateway": "10.1.0.1"}


def test_version_0_4_tells_the_ip_version() -> None:
    assert [ip["version"] for ip in RESULT.to_json("0.4.0")["ips"]] == ["4", "6"]


def test_version_0_2_has_one_address_of_each_family() -> None:
    found = RESULT.to_json("0.2.0")
    assert found["ip4"] == {
        "ip": "10.1.0.5/24",
        "gateway": "10.1.0.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    }
    assert found["ip6"] == {"ip": "fd00::5/64", "gateway": "fd00::1"}


@pytest.mark.parametrize("version", [v for v in SUPPORTED_VERSIONS if v >= "0.3"])
def test_result_survives_being_handed_on(version: str) -> None:
    again = Result.from_json(RESULT.to_json(version))
    assert again.ips == RESULT.ips
    assert [i.name for i in again.interfaces] == ["cni0", "eth0"]


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(CNIError) as caught:
        Result.from_json({"ips": [{"gateway": "10.0.0.1"}]})
    assert caught.value.code == ErrorCode.DECODING_FAILURE
