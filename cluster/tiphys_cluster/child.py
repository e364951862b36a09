"""One process of a cluster: what it is, and how a forked child becomes it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tiphys_cluster import cgroups, kernel

_MAX_DESCRIPTORS = 1 << 16


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run and where. Either module, whose main(argv) is called in a fork, or command, which is executed.

    stage orders the stop: the highest stops first, equal ones together. ports are those it listens on, for people and
    for readiness. title is shown by ps.
    """

    name: str
    argv: tuple[str, ...]
    module: str = ""
    log: str = ""
    cgroup: str = ""
    netns: str = ""
    mntns: str = ""
    env: dict[str, str] = field(default_factory=dict)
    stage: int = 1
    stop_timeout_s: float = 8.0
    address: str = ""
    ports: tuple[int, ...] = ()
    node: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can carry it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ChildSpec:
        """Read back from to_dict. Raises TypeError or KeyError for anything else."""
        return cls(**{**data, "argv": tuple(data["argv"]), "ports": tuple(data.get("ports", ()))})

    @classmethod
    def from_json(cls, text: str) -> ChildSpec:
        """Read back from the JSON of to_dict."""
        return cls.from_dict(json.loads(text))


def become(spec: ChildSpec) -> None:
    """Turn the calling process, a fresh fork, into the child; never returns.

    The child has a session and a process group of its own, its log as output, its cgroup and its namespaces. Whatever
    goes wrong on the way is in the log, and the exit code is 1.
    """
    code = 1
    try:
        _reset_signals()
        os.setsid()
        _redirect(spec.log)
        if spec.cgroup:
            cgroups.join(Path(spec.cgroup))
        kernel.enter_namespaces(netns=spec.netns, mntns=spec.mntns)
        os.chdir("/")
        os.environ.update(spec.env)
        if not spec.module:
            # Python ignores it, and an executed program would inherit that.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            _close_from(3)
            os.execvp(spec.argv[0], spec.argv)
        kernel.set_process_name(spec.name)
        kernel.set_command_line(f"tiphys: {spec.name} {' '.join(spec.argv)}")
        code = _call_main(spec)
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        # Not sys.exit: the frames above belong to the zygote and must not run in the child.
        os._exit(code)


def _call_main(spec: ChildSpec) -> int:
    module = importlib.import_module(spec.module)
    try:
        return int(module.main(list(spec.argv)) or 0)
    except SystemExit as exit_:
        if exit_.code is None or isinstance(exit_.code, int):
            return exit_.code or 0
        sys.stderr.write(f"{exit_.code}\n")
        return 1


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _redirect(log: str) -> None:
    _onto(os.open("/dev/null", os.O_RDONLY), 0)
    output = os.open(log or "/dev/null", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(output, 1)
    _onto(output, 2)


def _onto(descriptor: int, target: int) -> None:
    os.dup2(descriptor, target)
    if descriptor != target:
        os.close(descriptor)


def _close_from(first: int) -> None:
    os.closerange(first, _MAX_DESCRIPTORS)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # A full disk must not keep the child from ending.
