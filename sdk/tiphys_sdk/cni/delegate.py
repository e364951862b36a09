"""Hands a verb on to another plugin's executable, found by CNI_PATH: an ipam plugin, or any other."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.spec import CNIError, ErrorCode, Result

# Long enough for a plugin that waits for a lease by DHCP, shorter than a runtime's own patience.
TIMEOUT_S = 30.0
_LARGEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Done:
    """How an executable ended: its exit status, minus the signal where one ended it, and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def delegate(call: Call, name: str, *, verb: str | None = None, timeout_s: float = TIMEOUT_S) -> Result | None:
    """Has plugin `name` do the verb, by default the call's own; ADD gives its result.

    Raises CNIError: the plugin's own error with its code; TRY_AGAIN where it does not end in time, DECODING_FAILURE
    where it writes no result, IO_FAILURE where it dies. Nothing it started is left running.
    """
    command = verb or call.command
    path = find(name, call.path)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": call.container_id,
        "CNI_NETNS": call.netns,
        "CNI_IFNAME": call.ifname,
        "CNI_ARGS": call.args,
        "CNI_PATH": call.path,
    }
    done = execute([path], environment, json.dumps(call.conf).encode(), timeout_s=timeout_s)
    if done.exit_code != 0:
        raise _error_of(name, command, done)
    if command != "ADD":
        return None
    return Result.from_json(_decoded(name, command, done.stdout))


def find(name: str, path: str) -> str:
    """The executable of a plugin in the folders of CNI_PATH. Raises CNIError where there is none."""
    folders = [] if not name or "/" in name else path.split(":")
    for folder in folders:
        candidate = f"{folder}/{name}"
        if os.access(candidate, os.X_OK):
            return candidate
    raise CNIError(ErrorCode.INVALID_CONFIG, f"plugin {name!r} is not in {path}")


def execute(command: Sequence[str], environment: Mapping[str, str], stdin: bytes, *, timeout_s: float) -> Done:
    """Runs an executable in a session of its own, which is killed whole when it takes too long or writes too much.

    Raises CNIError: TRY_AGAIN for the first, DECODING_FAILURE for the second, IO_FAILURE where it can't be started.
    """
    path = command[-1]
    try:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as err:
        raise CNIError(ErrorCode.IO_FAILURE, f"{path} can't be run: {err}") from err
    with process:
        try:
            stdout, stderr = _talk(process, stdin, monotonic() + timeout_s)
            process.wait(timeout=timeout_s)
        except (TimeoutError, subprocess.TimeoutExpired) as err:
            raise CNIError(ErrorCode.TRY_AGAIN, f"{path} did not end within {timeout_s:g} s") from err
        finally:
            # Also after a good end: what a plugin left behind in its session would keep pipes and files open.
            _kill_session(process)
    return Done(process.returncode, stdout, stderr)


def _talk(process: subprocess.Popen[bytes], stdin: bytes, end: float) -> tuple[bytes, bytes]:
    """Writes the input and reads both outputs until they end. Raises TimeoutError, CNIError."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    outputs = {process.stdout: bytearray(), process.stderr: bytearray()}
    rest = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        for output in outputs:
            selector.register(output, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    rest = _written(process.stdin.fileno(), rest)
                    if not rest:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                    continue
                kept: bytearray = outputs[key.fileobj]  # type: ignore[index]
                kept += piece
                if len(kept) > _LARGEST_BYTES:
                    raise CNIError(ErrorCode.DECODING_FAILURE, f"plugin wrote more than {_LARGEST_BYTES} bytes")
    return bytes(outputs[process.stdout]), bytes(outputs[process.stderr])


def _written(fd: int, rest: memoryview) -> memoryview:
    try:
        return rest[os.write(fd, rest) :]
    except BrokenPipeError:
        return rest[:0]  # It reads no further, which is its right; its answer tells.


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # The whole session has ended.


def _decoded(name: str, command: str, stdout: bytes) -> dict[str, Any]:
    try:
        found = json.loads(stdout)
    except ValueError as err:
        raise _garbage(name, command, stdout) from err
    if not isinstance(found, dict):
        raise _garbage(name, command, stdout)
    return found


def _garbage(name: str, command: str, stdout: bytes) -> CNIError:
    said = stdout[:200].decode(errors="replace").strip()
    return CNIError(ErrorCode.DECODING_FAILURE, f"{name}: {command} gave no result but {said!r}")


def _error_of(name: str, command: str, done: Done) -> CNIError:
    try:
        found = json.loads(done.stdout)
        code, message, details = found["code"], found["msg"], found.get("details", "")
    except (ValueError, KeyError, TypeError):
        how = f"was ended by signal {-done.exit_code}" if done.exit_code < 0 else f"ended with {done.exit_code}"
        said = (done.stdout + done.stderr)[-2000:].decode(errors="replace").strip()
        return CNIError(ErrorCode.IO_FAILURE, f"{name}: {command} {how} and gave no error object", said)
    return CNIError(code if isinstance(code, int) else ErrorCode.INTERNAL, f"{name}: {message}", str(details))
