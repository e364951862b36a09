"""The file that keeps who holds what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys_kubelet.resources.allocation import Holding, Slot
from tiphys_kubelet.resources.checkpoint import Checkpoint, CorruptCheckpoint, decode, encode, read, write

names = st.text(max_size=5)
holdings = st.dictionaries(
    st.builds(Slot, names, names, names), st.builds(Holding, st.lists(names).map(tuple), st.binary(max_size=9))
)
KEPT = Checkpoint({Slot("u", "c", "a/b"): Holding(("0", "1"), b"\x01")}, {"a/b": ("0", "1", "2")})


@given(holdings, st.dictionaries(names, st.lists(names).map(tuple)))
def test_what_is_kept_comes_back(held: dict[Slot, Holding], registered: dict[str, tuple[str, ...]]) -> None:
    assert decode(encode(Checkpoint(held, registered))) == Checkpoint(held, registered)


def test_the_form_is_that_of_kubernetes() -> None:
    data = json.loads(encode(KEPT))["Data"]
    named = {"PodUID": "u", "ContainerName": "c", "ResourceName": "a/b"}
    entry = {**named, "DeviceIDs": {"-1": ["0", "1"]}, "AllocResp": "AQ=="}
    assert data == {"PodDeviceEntries": [entry], "RegisteredDevices": {"a/b": ["0", "1", "2"]}}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[]", id="another form"),
        pytest.param(encode(KEPT).replace(b'"0"', b'"9"'), id="changed by hand"),
        pytest.param(b'{"Data":{},"Checksum":1}', id="wrong checksum"),
    ],
)
def test_what_was_not_written_so_is_told(content: bytes) -> None:
    with pytest.raises(CorruptCheckpoint):
        decode(content)


def test_a_write_replaces_the_file_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    assert read(path) == Checkpoint()
    write(path, KEPT)
    write(path, Checkpoint())
    assert read(path) == Checkpoint()
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]
