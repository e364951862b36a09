"""The process that imports the services once, forks them, and forks them again when they die.

It is single-threaded for life: no thread, no event loop, no grpc object. Forking after grpc.aio has been used crashed
or hung the children (four of four), and numpy's pool of threads would be missing in them; so each import is followed by
a count of the threads. What was imported is frozen out of the collector's sight, so that its pages stay shared.

Control is a Unix socket with one JSON object per line, answered in order:

    {"op": "ping"}                        {"ok": true, "pid": 17}
    {"op": "import", "modules": [...]}    {"ok": true}
    {"op": "start", "child": {...}}       {"ok": true, "pid": 18}      twice is once; a changed child replaces the old
    {"op": "schedule", "child": {...}}    {"ok": true}                 a start that the answer does not wait for
    {"op": "stop", "name": "..."}         {"ok": true}                 answered at once, forgotten when it ended
    {"op": "list"}                        {"ok": true, "children": [...]}
    {"op": "shutdown"}                    {"ok": true}                 answered when all have ended; then so does it

A zygote that was killed leaves its children running, with a record each. The next one adopts them: it can't reap them,
but it hears of their end through a pidfd and starts them again as its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiphys_cluster import cgroups, kernel
from tiphys_cluster.child import ChildSpec, become
from tiphys_cluster.processes import ProcessId, identify
from tiphys_cluster.settings import write_atomic
from tiphys_cluster.supervisor import Child, State, Supervisor
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.log import Logger, configure, get_logger

_MAX_LINE = 1 << 20
_SEND_TIMEOUT_S = 2.0
_SERVED_TRIES = 250
_SERVED_STEP_S = 0.02


@dataclass(slots=True)
class _Connection:
    sock: socket.socket
    buffer: bytearray = field(default_factory=bytearray)


class Zygote:
    """The zygote's loop. One per process; run() returns after a shutdown."""

    def __init__(self, socket_path: Path, records: Path, *, lock: int, clock: Clock, log: Logger) -> None:
        self._socket_path = socket_path
        self._records = records
        self._lock = lock
        self._clock = clock
        self._log = log
        self._supervisor = Supervisor()
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, _Connection] = {}
        self._pidfds: dict[int, int] = {}
        self._waiting_for_shutdown: list[_Connection] = []
        self._shutting_down = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake_read, self._wake_write = socket.socketpair()
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "ping": lambda _: {"pid": os.getpid()},
            "import": self._import,
            "start": self._start,
            "schedule": self._schedule,
            "stop": self._stop,
            "list": lambda _: {"children": [_describe(child) for child in self._supervisor.children]},
        }

    def run(self, on_ready: Callable[[], None]) -> None:
        """Adopt what an earlier zygote left, then serve until a shutdown is done; on_ready is called in between."""
        self._socket_path.unlink(missing_ok=True)
        self._listener.bind(str(self._socket_path))
        os.chmod(self._socket_path, 0o600)
        self._listen_for_signals()
        self._adopt()
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        on_ready()
        self._log.info("zygote ready", socket=str(self._socket_path))
        while not self._is_finished():
            self._turn()
        for connection in self._waiting_for_shutdown:
            self._answer(connection, {"ok": True})
        self._socket_path.unlink(missing_ok=True)

    def _is_finished(self) -> bool:
        return self._shutting_down and not self._supervisor.next_stage()

    def _turn(self) -> None:
        deadline = self._supervisor.next_deadline()
        timeout = None if deadline is None else max(0.0, deadline - self._clock.monotonic())
        for key, _ in self._selector.select(timeout):
            key.data()
        now = self._clock.monotonic()
        for child in self._supervisor.due_kills(now):
            self._log.warning("child did not stop in time", child=child.spec.name, pid=child.pid)
            _signal_group(child.pid, signal.SIGKILL)
        if self._shutting_down:
            self._stop_next_stage()
            return
        for child in self._supervisor.due_starts(now):
            self._begin(child.spec)

    # Signals and deaths.

    def _listen_for_signals(self) -> None:
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_signal)

    def _on_signal(self) -> None:
        numbers = self._wake_read.recv(4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._begin_shutdown()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._on_exit(pid, _how_ended(status))

    def _on_exit(self, pid: int, how: str) -> None:
        child = self._supervisor.exited(pid, how, self._clock.monotonic())
        if child is None:
            return
        if child.state is State.STOPPED:
            self._log.info("child stopped", child=child.spec.name, pid=pid, how=how)
            self._record_path(child.spec.name).unlink(missing_ok=True)
            if not self._shutting_down:
                self._supervisor.forget(child.spec.name)
        else:
            wait_s = max(0.0, round(child.deadline - self._clock.monotonic(), 2))
            self._log.warning("child ended, will start again", child=child.spec.name, pid=pid, how=how, wait_s=wait_s)

    def _adopt(self) -> None:
        for path in sorted(self._records.glob("*.json")):
            try:
                record = json.loads(path.read_text())
                spec = ChildSpec.from_dict(record["spec"])
                process = ProcessId(record["pid"], record["start"])
            except (OSError, ValueError, KeyError, TypeError) as err:
                self._log.warning("record of a child can't be read", path=str(path), err=str(err))
                continue
            if not self._watch_adopted(process):
                path.unlink(missing_ok=True)
                continue
            self._supervisor.adopted(spec, process.pid, record.get("restarts", 0), self._clock.monotonic())
            self._log.info("child adopted", child=spec.name, pid=process.pid)

    def _watch_adopted(self, process: ProcessId) -> bool:
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return False
        if not process.is_alive():
            os.close(descriptor)
            return False

        def on_end() -> None:
            self._selector.unregister(descriptor)
            os.close(self._pidfds.pop(process.pid))
            self._on_exit(process.pid, "ended (adopted)")

        self._pidfds[process.pid] = descriptor
        self._selector.register(descriptor, selectors.EVENT_READ, on_end)
        return True

    # Forking.

    def _begin(self, spec: ChildSpec) -> None:
        try:
            if spec.module:
                self._load(spec.module)
        except Exception as err:  # Nobody waits for an answer; the next try follows as after any failed start.
            self._log.error("cannot import", child=spec.name, err=f"{type(err).__name__}: {err}")
            self._supervisor.start_failed(spec.name, str(err), self._clock.monotonic())
            return
        self._fork(spec)

    def _fork(self, spec: ChildSpec) -> int:
        _flush_output()
        try:
            pid = os.fork()
        except OSError as err:
            self._log.error("cannot fork", child=spec.name, err=str(err))
            self._supervisor.start_failed(spec.name, str(err), self._clock.monotonic())
            return 0
        if pid == 0:
            self._close_in_child()
            become(spec)
        self._supervisor.started(spec.name, pid, self._clock.monotonic())
        self._write_record(spec, pid)
        self._log.info("child started", child=spec.name, pid=pid)
        return pid

    def _close_in_child(self) -> None:
        signal.set_wakeup_fd(-1)
        # By their objects, not by number: a number closed twice might by then be a descriptor of the service.
        self._selector.close()
        for sock in (self._listener, self._wake_read, self._wake_write):
            sock.close()
        for connection in self._connections.values():
            connection.sock.close()
        for descriptor in (*self._pidfds.values(), self._lock):
            os.close(descriptor)

    def _write_record(self, spec: ChildSpec, pid: int) -> None:
        process = identify(pid)
        child = self._supervisor.get(spec.name)
        record = {
            "spec": spec.to_dict(),
            "pid": pid,
            "start": process.start if process else 0,
            "restarts": child.restarts if child else 0,
        }
        try:
            write_atomic(self._record_path(spec.name), json.dumps(record))
        except OSError as err:
            # Without its record the child is still found through its cgroup.
            self._log.error("cannot record child", child=spec.name, err=str(err))

    def _record_path(self, name: str) -> Path:
        return self._records / f"{name}.json"

    # Control.

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(_SEND_TIMEOUT_S)
        connection = _Connection(sock)
        self._connections[sock.fileno()] = connection
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))

    def _drop(self, connection: _Connection) -> None:
        self._connections.pop(connection.sock.fileno(), None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()
        if connection in self._waiting_for_shutdown:
            self._waiting_for_shutdown.remove(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except OSError:
            data = b""
        if not data or len(connection.buffer) + len(data) > _MAX_LINE:
            self._drop(connection)
            return
        connection.buffer += data
        while b"\n" in connection.buffer:
            line, _, rest = bytes(connection.buffer).partition(b"\n")
            connection.buffer[:] = rest
            self._serve(connection, line)

    def _serve(self, connection: _Connection, line: bytes) -> None:
        try:
            request = json.loads(line)
            if request["op"] == "shutdown":
                self._waiting_for_shutdown.append(connection)
                self._begin_shutdown()
                return
            answer = {"ok": True, **self._operations[request["op"]](request)}
        except Exception as err:  # The answer carries it; the zygote must outlive every bad request.
            self._log.error(
                "request failed", request=line[:200].decode(errors="replace"), err=f"{type(err).__name__}: {err}"
            )
            answer = {"ok": False, "error": f"{type(err).__name__}: {err}"}
        self._answer(connection, answer)

    def _answer(self, connection: _Connection, answer: dict[str, Any]) -> None:
        try:
            connection.sock.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            self._drop(connection)

    def _import(self, request: dict[str, Any]) -> dict[str, Any]:
        for name in request["modules"]:
            self._load(name)
        return {}

    def _load(self, name: str) -> None:
        if name in sys.modules:
            return
        importlib.import_module(name)
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            raise RuntimeError(f"import of {name} left {threads} threads; the zygote must stay single-threaded")
        gc.collect()
        gc.freeze()

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        spec = ChildSpec.from_dict(request["child"])
        if self._shutting_down:
            raise RuntimeError("shutting down")
        if spec.module:
            self._load(spec.module)
        if self._supervisor.wants_start(spec, self._clock.monotonic()):
            return {"pid": self._fork(spec)}
        child = self._supervisor.get(spec.name)
        if child is not None and child.successor is not None and child.state is State.RUNNING:
            self._end(spec.name)
        return {"pid": child.pid if child else 0}

    def _schedule(self, request: dict[str, Any]) -> dict[str, Any]:
        spec = ChildSpec.from_dict(request["child"])
        if self._shutting_down:
            raise RuntimeError("shutting down")
        now = self._clock.monotonic()
        if self._supervisor.wants_start(spec, now):
            self._supervisor.schedule(spec.name, now)
            return {}
        return self._start(request)

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self._end(request["name"])
        self._supervisor.forget(request["name"])
        if self._supervisor.get(request["name"]) is None:
            self._record_path(request["name"]).unlink(missing_ok=True)
        return {}

    def _end(self, name: str) -> None:
        child = self._supervisor.stop(name, self._clock.monotonic())
        if child is not None:
            _signal_process(child.pid, signal.SIGTERM)

    def _begin_shutdown(self) -> None:
        if not self._shutting_down:
            self._log.info("zygote shuts down", children=len(self._supervisor.children))
        self._shutting_down = True
        self._stop_next_stage()

    def _stop_next_stage(self) -> None:
        # A stage whose children all waited for their restart is over at once, and no event will say so.
        while stage := self._supervisor.next_stage():
            for child in stage:
                child.successor = None
                self._end(child.spec.name)
            if any(child.state is State.STOPPING for child in stage):
                return


def _describe(child: Child) -> dict[str, Any]:
    return {
        "name": child.spec.name,
        "state": child.state.value,
        "pid": child.pid,
        "restarts": child.restarts,
        "last_exit": child.last_exit,
        "address": child.spec.address,
        "ports": list(child.spec.ports),
        "node": child.spec.node,
        "log": child.spec.log,
    }


def _how_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _signal_process(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(pid: int, number: signal.Signals) -> None:
    # Each child leads a group, and helpers it executed are in it; containerd's shims have left it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
    _signal_process(pid, number)


def _flush_output() -> None:
    # What the parent has buffered would be written by the child a second time.
    sys.stdout.flush()
    sys.stderr.flush()


def main(argv: list[str] | None = None) -> int:
    """python -m tiphys_cluster.zygote SOCKET RECORDS PIDFILE LOG CGROUP: leave a zygote that serves behind.

    Exit code 0 when one does, also when it was another; 1 when it could not start.
    """
    socket_path, records, pid_file, _, cgroup = (Path(text) for text in (sys.argv[1:] if argv is None else argv))
    configure()
    log = get_logger("zygote")
    lock = lock_records(records)
    if lock is None:
        log.info("another zygote serves this cluster", socket=str(socket_path))
        return 0 if _is_served(socket_path) else 1
    ready, tell = os.pipe()
    if os.fork() != 0:
        os.close(tell)
        return 0 if os.read(ready, 1) else 1
    os.close(ready)
    # Found there even when every record is lost; children go on to groups of their own.
    cgroups.join(cgroup)
    kernel.become_subreaper()
    process = identify(os.getpid())
    write_atomic(pid_file, json.dumps({"pid": os.getpid(), "start": process.start if process else 0}))

    def on_ready() -> None:
        os.write(tell, b"1")
        os.close(tell)

    Zygote(socket_path, records, lock=lock, clock=SystemClock(), log=log).run(on_ready)
    pid_file.unlink(missing_ok=True)
    return 0


def _is_served(socket_path: Path) -> bool:
    # The other one has the lock before it has the socket: as when the keeper was faster than `up`.
    for _ in range(_SERVED_TRIES):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(socket_path)) == 0:
                return True
        select.select([], [], [], _SERVED_STEP_S)
    return False


def lock_records(records: Path) -> int | None:
    """A descriptor that holds the lock of this cluster's zygotes, None when another holds it.

    Children close their copy at once, so the lock ends with the zygote itself.
    """
    records.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(records, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


if __name__ == "__main__":
    sys.exit(main())
