"""Events, in the one form they are stored in."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Source: kube-apiserver --event-ttl.
TTL_S = 3600
# Events about objects without a namespace live in one of these.
_CLUSTER_NAMESPACES = ("", "default", "kube-system")


class EventStrategy(Strategy):
    """The rules of events."""

    allow_create_on_update = True
    alike_to_admission = True

    def ttl_s(self, obj: Message) -> int:
        """One hour from the last write."""
        return TTL_S

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """An event lives where its object does."""
        return super().validate(ctx, obj) + _faults(obj)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed event."""
        return super().validate_update(ctx, new, old) + _faults(new)


def _faults(event: Any) -> list[FieldError]:
    about, own = event.involvedObject.namespace, event.metadata.namespace
    if about == own or (not about and own in _CLUSTER_NAMESPACES):
        return []
    return [FieldError.invalid("involvedObject.namespace", about, "does not match event.namespace")]
