"""What the chain asks of flow control, and what it is given."""

from __future__ import annotations

from typing import Protocol

from tiphys_apiserver.server.call import Call


class FlowControl(Protocol):
    """Lets a request begin its work, lets it wait, or sends it away."""

    async def enter(self, call: Call) -> None:
        """Return when the request may begin; call.seat is then what it holds, freed by call.free_seat().

        Raises TooManyRequests.
        """
        ...
