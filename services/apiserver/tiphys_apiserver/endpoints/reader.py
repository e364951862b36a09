"""Resources that are read and not stored: what they show is found out when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.server.call import Call


class Reader(Protocol):
    """Answers get and list of one resource."""

    @property
    def info(self) -> ResourceInfo:
        """The resource."""
        ...

    async def get(self, call: Call) -> Any:
        """The object that the call names. Raises NotFound."""
        ...

    async def list(self, call: Call) -> Sequence[Any]:
        """The objects that the call's namespace and selectors choose. Raises BadRequest for one that can't be read."""
        ...
