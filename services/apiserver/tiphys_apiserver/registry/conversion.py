"""Resources that are served in a version other than the one they are stored in.

events.k8s.io/v1 Event                      is stored as core/v1 Event
autoscaling/v1 HorizontalPodAutoscaler      is stored as autoscaling/v2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Converter:
    """Both ways between a served version and the stored one, which is served at home (group, version, plural).

    The functions make new messages and lose nothing that the other version can say. field_names
    maps names of a field selector to those of the stored version.
    """

    home: tuple[str, str, str]
    to_storage: Convert
    from_storage: Convert
    field_names: Mapping[str, str]


class RemoteConverter(Protocol):
    """Conversions that somebody else makes: objects lie in the store in whatever version they were written in.

    Each raises InternalError where the conversion fails.
    """

    @property
    def format(self) -> ObjectFormat:
        """How objects of the served version are written."""
        ...

    @property
    def is_home_of_all(self) -> bool:
        """Whether every object lies in the served version, so that the cache can choose among them."""
        ...

    async def to_storage(self, obj: Any) -> Any:
        """The object in the stored version."""
        ...

    async def from_storage(self, obj: Any) -> Any:
        """The object in the served version."""
        ...

    async def view(self, items: Sequence[CachedObject]) -> list[CachedObject]:
        """Cached objects in the served version, in order."""
        ...


# (group, version, plural) -> module with CONVERTER, imported when the server starts.
_CONVERTED = {
    ("events.k8s.io", "v1", "events"): "tiphys_apiserver.registry.events.conversion",
    ("autoscaling", "v1", "horizontalpodautoscalers"): "tiphys_apiserver.registry.autoscaling.conversion",
}


def converter_for(info: ResourceInfo) -> Converter | None:
    """The converter of a resource, None where it is stored as it is served."""
    module = _CONVERTED.get((info.group, info.version, info.plural))
    return None if module is None else cast(Converter, import_module(module).CONVERTER)
