"""Priority classes."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass
from tiphys_apimachinery.errors import FieldError, Forbidden
from tiphys_apiserver.bootstrap.cluster_objects import PRIORITY_CLASSES
from tiphys_apiserver.registry.strategy import Finish, Strategy, WriteContext

_SYSTEM_PREFIX = "system-"
_HIGHEST_OF_USERS = 1_000_000_000


class PriorityClassStrategy(Strategy):
    """The rules of priority classes."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """High values and names with system- are the system's own."""
        item: Any = obj
        errors = super().validate(ctx, obj)
        system_values = {name: value for name, value, _ in PRIORITY_CLASSES}
        if item.metadata.name.startswith(_SYSTEM_PREFIX):
            if system_values.get(item.metadata.name) != item.value:
                errors.append(
                    FieldError.forbidden(
                        "metadata.name",
                        f"priority class names with '{_SYSTEM_PREFIX}' prefix are reserved for system use only",
                    )
                )
        elif item.value > _HIGHEST_OF_USERS:
            errors.append(
                FieldError.forbidden(
                    "value", f"maximum allowed value of a user defined priority is {_HIGHEST_OF_USERS}"
                )
            )
        return errors

    async def begin_create(self, ctx: WriteContext, obj: Message) -> Finish | None:
        """Only one class may be the default for all pods."""
        await self._refuse_second_default(obj)
        return None

    async def begin_update(self, ctx: WriteContext, new: Any, old: Any) -> Finish | None:
        """The same for a class that becomes the default."""
        if new.globalDefault and not old.globalDefault:
            await self._refuse_second_default(new)
        return None

    async def _refuse_second_default(self, item: Any) -> None:
        if not item.globalDefault:
            return
        for other in await self.environment.objects.list(PriorityClass):
            if other.globalDefault and other.metadata.name != item.metadata.name:
                why = f"PriorityClass {other.metadata.name} is already marked as default. Only one default can exist"
                raise Forbidden.of("priorityclasses", item.metadata.name, why, group="scheduling.k8s.io")
