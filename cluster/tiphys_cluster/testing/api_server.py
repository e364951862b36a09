"""The API server without ports: the real chain and endpoints over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from tiphys_apiserver.main import uid_maker
from tiphys_apiserver.options import Options
from tiphys_apiserver.rpc.in_process import InProcessDoor
from tiphys_apiserver.server.assembly import Assembly, Foundation, assemble
from tiphys_apiserver.storage.compactor import Compactor
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_client.transport import InProcessTransport
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.health import Health
from tiphys_component.metrics import Registry

ADMIN: Final = "admin"
# Who talks to the server, with the groups that matter; each has its name as its token.
_USERS: Final[Mapping[str, str]] = {
    ADMIN: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
_PORT = 6443


@dataclass(frozen=True, slots=True)
class SimulatedApiServer:
    """A server that answers calls of this process."""

    parts: Assembly
    door: InProcessDoor
    store: MemoryStore

    def transport(self, user: str = ADMIN) -> InProcessTransport:
        """The road of one of the users."""
        return self.door.transport(user)


@asynccontextmanager
async def api_server(clock: Clock, rng: Random) -> AsyncIterator[SimulatedApiServer]:
    """A server with all that a new cluster has, while the block runs."""
    with TemporaryDirectory(prefix="tiphys-simulation-") as folder:
        tokens = Path(folder) / "tokens"
        lines = (f'{user},{user},{user},"{groups}"' for user, groups in _USERS.items())
        tokens.write_text("\n".join(lines))
        store = MemoryStore(clock)
        # Requests of one process never come too fast for the machine; shares of it are another test's matter.
        options = Options(store="memory", token_auth_file=tokens, enable_priority_and_fairness=False)
        base = Foundation(
            options=options,
            store=store,
            clock=clock,
            health=Health(),
            metrics=Registry(),
            kubelet_tls=None,
            new_uid=uid_maker(rng),
            rng=rng,
        )
        parts = assemble(base)
    try:
        async with asyncio.TaskGroup() as group:
            parts.table.start(group)
            running = start_loop(group, Compactor(store, clock, interval_s=300.0).run(), "compaction")
            await parts.table.wait_ready()
            custom = start_loop(group, parts.definitions.run(), "custom resources")
            await parts.bootstrap(_PORT)
            yield SimulatedApiServer(parts, InProcessDoor(parts), store)
            parts.resources.end_watches()
            running.cancel()
            custom.cancel()
            raise _Over
    except* _Over:
        pass
    finally:
        await store.close()


class _Over(Exception):
    """The block has ended: the group's loops end with it."""
