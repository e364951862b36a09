"""The frame of every plugin: a table of verbs, a call in, an answer out. One function a verb."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tiphys_sdk.cni.conf import Call, parse_call
from tiphys_sdk.cni.spec import NEWEST_VERSION, SUPPORTED_VERSIONS, CNIError, ErrorCode, Result

# Verbs that came later, with the version that brought them: a configuration of an older one may not ask for them.
_SINCE = {"CHECK": (0, 4, 0), "GC": (1, 1, 0), "STATUS": (1, 1, 0)}


def nothing(call: Call) -> None:
    """A verb for which a plugin has nothing to do."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One executable. Each verb may be called any number of times; delete of what is gone succeeds.

    A verb raises CNIError for what the caller should read. status raises where an ADD could not succeed now; collect
    frees what belongs to attachments of the network that are not among `call.valid_attachments`.
    """

    name: str
    add: Callable[[Call], Result]
    delete: Callable[[Call], None]
    check: Callable[[Call], None] = nothing
    status: Callable[[Call], None] = nothing
    collect: Callable[[Call], None] = nothing


@dataclass(frozen=True, slots=True)
class Answer:
    """What the executable prints, and its exit status."""

    exit_code: int
    stdout: bytes


def run(plugin: Plugin, environment: Mapping[str, str], stdin: bytes, netns_fd: int) -> Answer:
    """Runs one call to its answer. What is neither CNIError nor OSError is the plugin's fault and goes through."""
    version = NEWEST_VERSION
    try:
        call = parse_call(environment, stdin, netns_fd)
        version = call.version
        return Answer(0, _dispatch(plugin, call))
    except CNIError as err:
        return _failure(err, version)
    except OSError as err:
        return _failure(CNIError(ErrorCode.IO_FAILURE, f"{plugin.name}: {err}"), version)


def crashed(err: BaseException) -> Answer:
    """The answer for a fault of the plugin's own."""
    return _failure(CNIError(ErrorCode.INTERNAL, f"internal error: {err!r}"), "1.0.0")


def _failure(err: CNIError, version: str) -> Answer:
    return Answer(1, json.dumps(err.to_json(version)).encode() + b"\n")


def _dispatch(plugin: Plugin, call: Call) -> bytes:
    if call.command == "VERSION":
        version = str(call.conf.get("cniVersion", NEWEST_VERSION))
        return json.dumps({"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}).encode() + b"\n"
    if call.command == "ADD":
        return json.dumps(plugin.add(call).to_json(call.version)).encode() + b"\n"
    since = _SINCE.get(call.command, (0,))
    if tuple(map(int, call.version.split("."))) < since:
        message = f"{call.command} came with version {'.'.join(map(str, since))}, the configuration is {call.version}"
        raise CNIError(ErrorCode.INCOMPATIBLE_VERSION, message)
    verbs = {"DEL": plugin.delete, "CHECK": plugin.check, "GC": plugin.collect, "STATUS": plugin.status}
    verbs[call.command](call)
    return b""
