"""What an admission plug-in is given and what it may do."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import Message

from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.authentication.interface import UserInfo


class Operation(enum.Enum):
    """What is about to happen; the values are those of AdmissionReview."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(frozen=True, slots=True)
class AdmissionAttributes:
    """One write on its way to the store.

    object is the new object (None for DELETE): a mutating plug-in changes it in place.
    old_object is the stored one for UPDATE and DELETE and is read-only. For a subresource that
    is not the object itself (binding, eviction, token) object is that message. name may be empty
    on CREATE with generateName. options is CreateOptions, UpdateOptions or DeleteOptions, None
    where nothing was said. warn adds a Warning header to the answer. waited notes seconds that webhooks took.
    """

    operation: Operation
    resource: ResourceInfo
    subresource: str
    namespace: str
    name: str
    object: Message | None
    old_object: Message | None
    user: UserInfo
    dry_run: bool = False
    options: Message | None = None
    warn: Callable[[str], None] = field(default=lambda text: None)
    waited: Callable[[float], None] = field(default=lambda seconds: None)


class MutatingPlugin(Protocol):
    """Completes or corrects objects before the strategy and validation see them."""

    name: str

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Whether admit has anything to do; cheap, as it is asked for every write.

        For bindings, deletes in namespaces and kinds whose strategy says alike_to_admission it does not depend on name
        and object.
        """
        ...

    async def admit(self, attributes: AdmissionAttributes) -> bool | None:
        """Change attributes.object in place; True where defaults must be filled in anew.

        Raises Forbidden, Invalid, ... to refuse the write.
        """
        ...


class ValidatingPlugin(Protocol):
    """Refuses what may not be stored; changes nothing."""

    name: str

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Whether validate has anything to do; cheap, as it is asked for every write."""
        ...

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raise Forbidden, Invalid, ... to refuse the write."""
        ...


class Admission(Protocol):
    """The two passes as the endpoints call them: admission/chain.py implements it."""

    async def admit_alike(self, attributes: AdmissionAttributes) -> bool:
        """Whether both passes are done for all writes of one batch that differ in name and object only.

        False where a plug-in must see each. Raises what a plug-in does that looks at the namespace alone.
        """
        ...

    async def admit(self, attributes: AdmissionAttributes) -> bool:
        """Run every mutating plug-in that handles it, in order; whether defaults must be filled in anew."""
        ...

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Run every validating plug-in that handles it, in the order of the chain."""
        ...
