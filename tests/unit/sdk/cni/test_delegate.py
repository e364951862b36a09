from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.delegate import delegate, execute
from tiphys_sdk.cni.spec import CNIError, ErrorCode


def call(folder: Path, **conf: object) -> Call:
    return Call("ADD", "c1", "/n", -1, "eth0", "K=V", f"/nowhere:{folder}", {"cniVersion": "0.2.0", **conf})


def program(folder: Path, text: str) -> Path:
    path = folder / "other"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_other_plugin_gets_the_call_and_its_result_is_read(tmp_path: Path) -> None:
    answer = {"ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]}}
    program(tmp_path, f"env > {tmp_path}/seen; cat > {tmp_path}/stdin; echo '{json.dumps(answer)}'")

    result = delegate(call(tmp_path, name="net"), "other")

    assert result is not None
    assert [(a.address, a.gateway) for a in result.ips] == [("10.0.0.2/24", "10.0.0.1")]
    assert [route.dst for route in result.routes] == ["0.0.0.0/0"]
    seen = (tmp_path / "seen").read_text()
    for variable in ("CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=/n", "CNI_IFNAME=eth0", "CNI_ARGS=K=V"):
        assert f"{variable}\n" in seen
    assert json.loads((tmp_path / "stdin").read_text()) == {"cniVersion": "0.2.0", "name": "net"}


def test_verb_without_a_result_gives_none(tmp_path: Path) -> None:
    program(tmp_path, '[ "$CNI_COMMAND" = DEL ]')

    assert delegate(call(tmp_path), "other", verb="DEL") is None


@pytest.mark.parametrize("name", ["", "../other", "absent"], ids=["empty", "path", "absent"])
def test_plugin_that_is_not_in_the_path_is_told(tmp_path: Path, name: str) -> None:
    program(tmp_path, "true")

    with pytest.raises(CNIError, match="is not in") as caught:
        delegate(call(tmp_path), name)
    assert caught.value.code == ErrorCode.INVALID_CONFIG


def test_plugin_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    path = program(tmp_path, f"sleep 613 & echo $! > {tmp_path}/child; wait")

    with pytest.raises(CNIError, match="did not end within") as caught:
        execute([str(path)], {"PATH": "/bin:/usr/bin"}, b"", timeout_s=0.1)

    assert caught.value.code == ErrorCode.TRY_AGAIN
    child = (tmp_path / "child").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, check=False).stdout
    assert state.strip()[:1] in ("", "Z")


def test_plugin_that_reads_nothing_is_no_failure(tmp_path: Path) -> None:
    path = program(tmp_path, "exec 0<&-; echo '{}'")

    done = execute([str(path)], {"PATH": "/bin"}, b"x" * 1_000_000, timeout_s=5)

    assert (done.exit_code, done.stdout) == (0, b"{}\n")
