"""Calls with bad input: each gets the specification's error, and no verb is run."""

from __future__ import annotations

import json

import pytest

from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.serve import answer_to
from tiphys_sdk.cni.skel import Answer, Plugin, nothing, run
from tiphys_sdk.cni.spec import CNIError, ErrorCode, Result

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONF = {"cniVersion": "1.0.0", "name": "net", "type": "t"}


def plugin(seen: list[Call]) -> Plugin:
    def add(call: Call) -> Result:
        seen.append(call)
        return Result()

    def other(call: Call) -> None:
        seen.append(call)

    return Plugin("t", add, other, other, other, other)


def call(environment: dict[str, str], conf: object, seen: list[Call] | None = None) -> tuple[Answer, dict[str, object]]:
    stdin = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
    answer = run(plugin([] if seen is None else seen), environment, stdin, -1)
    return answer, json.loads(answer.stdout) if answer.stdout else {}


@pytest.mark.parametrize(
    ("change", "conf", "code", "word"),
    [
        ({"CNI_COMMAND": "FLY"}, CONF, ErrorCode.INVALID_ENVIRONMENT, "FLY"),
        ({"CNI_CONTAINERID": ""}, CONF, ErrorCode.INVALID_ENVIRONMENT, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "../x"}, CONF, ErrorCode.INVALID_ENVIRONMENT, "../x"),
        ({"CNI_IFNAME": "a" * 16}, CONF, ErrorCode.INVALID_ENVIRONMENT, "a" * 16),
        ({"CNI_IFNAME": "a/b"}, CONF, ErrorCode.INVALID_ENVIRONMENT, "a/b"),
        ({}, b"{", ErrorCode.DECODING_FAILURE, "JSON"),
        ({}, [], ErrorCode.DECODING_FAILURE, "object"),
        ({}, CONF | {"cniVersion": "9.9"}, ErrorCode.INCOMPATIBLE_VERSION, "incompatible"),
        ({}, CONF | {"name": "no/name"}, ErrorCode.INVALID_CONFIG, "no/name"),
    ],
    ids=["verb", "no id", "bad id", "long ifname", "slash", "truncated", "list", "version", "network"],
)
def test_bad_call_is_refused(change: dict[str, str], conf: object, code: ErrorCode, word: str) -> None:
    seen: list[Call] = []
    answer, error = call(ENVIRONMENT | change, conf, seen)
    assert (answer.exit_code, error["code"]) == (1, code)
    assert word in str(error["msg"]) + str(error.get("details", ""))
    assert seen == []


def test_answer_is_in_the_version_asked_for() -> None:
    _, result = call(ENVIRONMENT, CONF | {"cniVersion": "0.3.1"})
    assert result["cniVersion"] == "0.3.1"


def test_version_verb_lists_all_versions_without_any_configuration() -> None:
    _, result = call({"CNI_COMMAND": "VERSION"}, b"")
    assert "1.1.0" in str(result["supportedVersions"])


def test_failure_of_a_verb_is_an_error_object() -> None:
    def fail(_: Call) -> Result:
        raise CNIError(ErrorCode.TRY_AGAIN, "busy", "later")

    answer = run(Plugin("t", fail, *[lambda _: None] * 4), ENVIRONMENT, json.dumps(CONF).encode(), -1)
    assert json.loads(answer.stdout) == {"cniVersion": "1.0.0", "code": 11, "msg": "busy", "details": "later"}


def test_error_of_the_system_is_an_io_failure() -> None:
    def fail(_: Call) -> Result:
        raise PermissionError(13, "no")

    answer = run(Plugin("t", fail, *[lambda _: None] * 4), ENVIRONMENT, json.dumps(CONF).encode(), -1)
    assert json.loads(answer.stdout)["code"] == ErrorCode.IO_FAILURE


@pytest.mark.parametrize(
    ("verb", "version", "code"),
    [("CHECK", "0.3.1", 1), ("CHECK", "0.4.0", 0), ("GC", "1.0.0", 1), ("GC", "1.1.0", 0), ("STATUS", "1.0.0", 1)],
)
def test_verb_is_refused_to_configurations_older_than_it(verb: str, version: str, code: int) -> None:
    answer, error = call(ENVIRONMENT | {"CNI_COMMAND": verb}, CONF | {"cniVersion": version})
    assert answer.exit_code == code
    assert error.get("code") == (ErrorCode.INCOMPATIBLE_VERSION if code else None)


def test_collecting_without_a_list_of_what_is_valid_is_refused() -> None:
    """Taking a missing list for an empty one would free what is in use."""
    given = Call("GC", "", "", -1, "", "", "/p", {"cniVersion": "1.1.0", "name": "net"})
    with pytest.raises(CNIError, match="valid-attachments"):
        _ = given.valid_attachments


def test_fault_of_the_plugin_is_answered_as_an_error_object(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(call: Call) -> Result:
        raise KeyError("ips")

    stdin = json.dumps(CONF).encode()
    answer = answer_to(Plugin("t", broken, nothing), ENVIRONMENT, stdin)
    assert (answer.exit_code, json.loads(answer.stdout)["code"]) == (1, ErrorCode.INTERNAL)
    assert "KeyError" in capsys.readouterr().err
