"""host-local: every address once, none lost, whatever the order of calls."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiphys_cni.ipam import host_local
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.spec import CNIError, ErrorCode


def call(folder: Path, container: str = "c1", *, ipam: dict[str, Any] | None = None) -> Call:
    conf = {"name": "net", "ipam": {"dataDir": str(folder), **(ipam or {"ranges": [[{"subnet": "10.1.0.0/29"}]]})}}
    return Call("ADD", container, "/x", -1, "eth0", "", "", conf)


def address(found: Call) -> str:
    return host_local.add(found).ips[0].address


def test_addresses_go_on_behind_the_last_one(tmp_path: Path) -> None:
    assert address(call(tmp_path, "a")) == "10.1.0.2/29"
    host_local.delete(call(tmp_path, "a"))
    assert address(call(tmp_path, "b")) == "10.1.0.3/29"


def test_the_gateway_is_never_given_out(tmp_path: Path) -> None:
    found = {address(call(tmp_path, f"c{i}")) for i in range(5)}
    assert found == {f"10.1.0.{i}/29" for i in range(2, 7)}


def test_F19_an_empty_range_is_a_clear_error_and_keeps_nothing(tmp_path: Path) -> None:
    for i in range(5):
        address(call(tmp_path, f"c{i}"))
    with pytest.raises(CNIError, match=r"no IP addresses left in range 10\.1\.0\.1-10\.1\.0\.6"):
        host_local.add(call(tmp_path, "late"))
    with pytest.raises(CNIError):
        host_local.check(call(tmp_path, "late"))
    with pytest.raises(CNIError) as caught:
        host_local.status(call(tmp_path))
    assert caught.value.code == ErrorCode.ADDRESSES_EXHAUSTED


def test_the_same_container_gets_the_same_address_again(tmp_path: Path) -> None:
    assert address(call(tmp_path, "a")) == address(call(tmp_path, "a"))


def test_delete_of_absent_container_succeeds(tmp_path: Path) -> None:
    host_local.delete(call(tmp_path, "nobody"))


def test_one_address_of_each_set(tmp_path: Path) -> None:
    ipam = {"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9"}], [{"subnet": "fd00::/64"}]]}
    found = host_local.add(call(tmp_path, ipam=ipam)).ips
    assert [a.address for a in found] == ["10.1.0.9/24", "fd00::2/64"]


def test_garbage_collection_keeps_valid_attachments(tmp_path: Path) -> None:
    for name in ("a", "b"):
        address(call(tmp_path, name))
    found = call(tmp_path)
    valid = [{"containerID": "a", "ifname": "eth0"}]
    host_local.collect(replace(found, conf={**found.conf, "cni.dev/valid-attachments": valid}))
    host_local.check(call(tmp_path, "a"))
    with pytest.raises(CNIError):
        host_local.check(call(tmp_path, "b"))


@pytest.mark.parametrize(
    ("ipam", "word"),
    [
        ({"ranges": [[{"subnet": "10.1.0.0/33"}]]}, "10.1.0.0/33"),
        ({"ranges": [[{"subnet": "10.1.0.0/31"}]]}, "too small"),
        ({"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}]]}, "10.2.0.1"),
        ({"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.3"}]]}, "above"),
        ({"subnet": ""}, "neither subnet nor ranges"),
    ],
    ids=["mask", "small", "outside", "order", "nothing"],
)
def test_bad_range_is_named(tmp_path: Path, ipam: dict[str, Any], word: str) -> None:
    with pytest.raises(CNIError) as caught:
        host_local.add(call(tmp_path, ipam=ipam))
    assert caught.value.code == ErrorCode.INVALID_CONFIG
    assert word in caught.value.message


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=40))
def test_no_address_has_two_owners(tmp_path: Path, steps: list[tuple[bool, int]]) -> None:
    # A folder for each example: what is drawn may be drawn again.
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    held: dict[str, str] = {}
    for is_add, number in steps:
        name = f"c{number}"
        if not is_add:
            host_local.delete(call(folder, name))
            held.pop(name, None)
            continue
        try:
            found = address(call(folder, name))
        except CNIError:
            assert len(held) == 5
            continue
        assert held.get(name, found) == found
        held[name] = found
        assert len(set(held.values())) == len(held)
