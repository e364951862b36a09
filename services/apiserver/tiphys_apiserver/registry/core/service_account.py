"""Service accounts."""

from __future__ import annotations

from typing import Any

from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class ServiceAccountStrategy(Strategy):
    """The rules of service accounts."""

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """A manifest that leaves the list of secrets open does not drop what was added to it."""
        super().prepare_for_update(ctx, new, old)
        if not new.secrets and old.secrets:
            new.secrets.MergeFrom(old.secrets)
