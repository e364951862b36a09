"""The frame of every plugin: a table of verbs, a call in, an answer out. One function a verb."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tiphys_sdk.cni.conf import Call, parse_call
from tiphys_sdk.cni.spec import NEWEST_VERSION, SUPPORTED_VERSIONS, CNIError, ErrorCode, Result


@dataclass(frozen=True, slots=True)
class Plugin:
    """One executable. Each verb may be called any number of times; delete of what is gone succeeds."""

    name: str
    add: Callable[[Call], Result]
    delete: Callable[[Call], None]
    check: Callable[[Call], None]
    status: Callable[[Call], None]
    collect: Callable[[Call], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the executable prints, and its exit status."""

    exit_code: int
    stdout: bytes


def run(plugin: Plugin, environment: Mapping[str, str], stdin: bytes, netns_fd: int) -> Answer:
    """Runs one call to its answer; never raises."""
    version = NEWEST_VERSION
    try:
        call = parse_call(environment, stdin, netns_fd)
        version = call.version
        return Answer(0, _dispatch(plugin, call))
    except CNIError as err:
        return _failure(err, version)
    except OSError as err:
        return _failure(CNIError(ErrorCode.IO_FAILURE, f"{plugin.name}: {err}"), version)


def _failure(err: CNIError, version: str) -> Answer:
    return Answer(1, json.dumps(err.to_json(version)).encode() + b"\n")


def _dispatch(plugin: Plugin, call: Call) -> bytes:
    if call.command == "VERSION":
        version = str(call.conf.get("cniVersion", NEWEST_VERSION))
        return json.dumps({"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}).encode() + b"\n"
    if call.command == "ADD":
        return json.dumps(plugin.add(call).to_json(call.version)).encode() + b"\n"
    verbs = {"DEL": plugin.delete, "CHECK": plugin.check, "GC": plugin.collect, "STATUS": plugin.status}
    verbs[call.command](call)
    return b""
