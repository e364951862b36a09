"""What both doors lead to: the parts that endpoints work with, and what every write has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tiphys_apimachinery.errors import APIError, MethodNotAllowed, NotFound
from tiphys_apiserver.admission.interface import Admission, AdmissionAttributes, Operation
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.forbidden import forbidden
from tiphys_apiserver.authorization.interface import Authorizer
from tiphys_apiserver.endpoints.ownership import Ownership
from tiphys_apiserver.endpoints.reader import Reader
from tiphys_apiserver.registry.admit import Admit
from tiphys_apiserver.registry.strategy import WriteContext
from tiphys_apiserver.registry.table import ResourceTable, Served
from tiphys_apiserver.server.call import Call
from tiphys_component.clock import Clock


class Answerer(Protocol):
    """Answers a create that stores nothing: reviews, tokens."""

    async def create(self, user: UserInfo, obj: Any, *, namespace: str, name: str) -> Any:
        """The object with its status; name is the parent's where it is a subresource."""
        ...


@dataclass(frozen=True, slots=True)
class Hall:
    """The parts. answerers is by (group, version, resource), with "/subresource" behind it where there is one.

    readers is by (group, version, resource) too.
    """

    table: ResourceTable
    admission: Admission
    clock: Clock
    answerers: Mapping[tuple[str, str, str], Answerer]
    readers: Mapping[tuple[str, str, str], Reader]
    authorizer: Authorizer

    def served(self, call: Call) -> Served:
        """The resource that the call is about. Raises NotFound for one that is not served."""
        info = call.info
        found = self.table.find(info.api_group, info.api_version, info.resource)
        if found is None or (found.info.namespaced != bool(info.namespace) and not _spans_namespaces(found, call)):
            raise NotFound.of_path()
        if found.info.deprecation:
            call.warn(found.info.deprecation)
        return found

    async def check_create(self, call: Call) -> None:
        """Whether the caller of an update or apply that would make a new object may create. Raises Forbidden."""
        attributes = replace(call.attributes(), verb="create")
        decision = await self.authorizer.authorize(attributes)
        if not decision.allowed:
            raise forbidden(attributes, decision.reason)

    def owned_context(self, served: Served, call: Call) -> WriteContext:
        """The context of a write that records who owns what it writes."""
        ctx = self.write_context(call)
        ctx.record_owner = Ownership(served, call, ctx.now).record
        return ctx

    def write_context(self, call: Call) -> WriteContext:
        """The context of one write."""
        info = call.info
        return WriteContext(
            now=self.clock.now(),
            user=call.user,
            namespace=info.namespace,
            name=info.name,
            subresource=info.subresource,
            dry_run=call.dry_run,
            field_manager=call.field_manager,
            warnings=call.warnings,
            is_filled=call.is_filled,
        )

    async def admits_alike(self, attributes: AdmissionAttributes) -> bool:
        """Whether admission lets all writes of a batch pass that differ from these in name and object only.

        False where it must see each, or refuses all: each is told so by itself.
        """
        try:
            return await self.admission.admit_alike(attributes)
        except APIError:
            return False

    def admit(self, served: Served, call: Call, operation: Operation, options: Any | None = None) -> Admit:
        """Both passes of admission for a write of the stored kind."""
        resource = served.store.resource
        info = call.info
        made: AdmissionAttributes | None = None

        def attributes(new: Any, old: Any) -> AdmissionAttributes:
            nonlocal made
            seen = old if new is None else new
            name = info.name or seen.metadata.name
            if made is not None and made.object is new and made.old_object is old and made.name == name:
                # The second pass sees what the first saw.
                return made
            kind = Operation.CREATE if operation is Operation.UPDATE and old is None else operation
            made = AdmissionAttributes(
                kind, resource, info.subresource, info.namespace, name, new, old,
                call.user, call.dry_run, options, call.warn, call.waited,
            )  # fmt: skip
            return made

        async def mutate(new: Any, old: Any) -> bool:
            return await self.admission.admit(attributes(new, old))

        async def validate(new: Any, old: Any) -> None:
            await self.admission.validate(attributes(new, old))

        return Admit(mutate, validate)


def _spans_namespaces(served: Served, call: Call) -> bool:
    """Whether the call is a list, watch or the like of a namespaced resource over all namespaces.

    A namespace is its own namespace in paths, though the resource is cluster-scoped.
    """
    if served.info.namespaced:
        return call.info.verb in ("list", "watch", "get")
    return served.info.plural == "namespaces"


def refuse_verb(call: Call) -> MethodNotAllowed:
    """The error for a verb that the resource does not have."""
    return MethodNotAllowed.of(call.info.resource, call.info.verb, group=call.info.api_group)
