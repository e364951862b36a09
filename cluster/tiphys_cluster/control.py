"""The caller's side of the zygote: start one, speak its line protocol."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tiphys_cluster.child import ChildSpec
from tiphys_cluster.errors import ClusterError, NotRunningError
from tiphys_cluster.layout import Layout
from tiphys_cluster.processes import ProcessId, read_record
from tiphys_cluster.spawn import spawn_zygote, zygote_argv
from tiphys_component.proc import to_thread

_ANSWER_TIMEOUT_S = 60.0


class ZygoteError(ClusterError):
    """The zygote refused a request or does not answer."""


class ZygoteClient:
    """One connection to a zygote; requests are answered in the order they were sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()

    @classmethod
    async def connect(cls, path: Path) -> ZygoteClient:
        """Connect to a zygote's socket. Raises NotRunningError when nobody listens there."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 22)
        except (FileNotFoundError, ConnectionRefusedError) as err:
            raise NotRunningError(f"no zygote listens on {path}") from err
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def call(self, op: str, *, timeout_s: float = _ANSWER_TIMEOUT_S, **fields: Any) -> dict[str, Any]:
        """Send a request and return its answer. Raises ZygoteError when it is refused or takes too long."""
        async with self._lock:
            try:
                async with asyncio.timeout(timeout_s):
                    self._writer.write(json.dumps({"op": op, **fields}).encode() + b"\n")
                    await self._writer.drain()
                    line = await self._reader.readline()
            except (TimeoutError, OSError) as err:
                raise ZygoteError(f"the zygote did not answer {op!r} within {timeout_s:g} s") from err
        if not line:
            raise ZygoteError(f"the zygote ended before it answered {op!r}")
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise ZygoteError(f"the zygote refused {op!r}: {answer.get('error', 'no reason given')}")
        return answer

    async def start(self, spec: ChildSpec) -> int:
        """Have a child run; its process number."""
        answer = await self.call("start", child=spec.to_dict())
        return int(answer["pid"])

    async def schedule(self, spec: ChildSpec) -> None:
        """Have a child run soon; its import and its fork are not waited for. Failures are in the zygote's log."""
        await self.call("schedule", child=spec.to_dict())

    async def preload(self, modules: list[str]) -> None:
        """Import modules, so that later forks find them."""
        await self.call("import", modules=modules)

    async def children(self) -> list[dict[str, Any]]:
        """What the zygote says of each child."""
        answer = await self.call("list")
        children: list[dict[str, Any]] = answer["children"]
        return children


def read_zygote(layout: Layout) -> ProcessId | None:
    """The zygote that runs for this cluster, None when none does."""
    return read_record(layout.zygote_pid)


async def ensure_zygote(layout: Layout) -> ZygoteClient:
    """A connection to the cluster's zygote, which is started when none runs. Raises ClusterError."""
    if read_zygote(layout) is None and not await to_thread(spawn_zygote, zygote_argv(layout)):
        raise ClusterError("the zygote did not start", f"See {layout.log('zygote')}.")
    return await ZygoteClient.connect(layout.zygote_socket)
