"""Claims of devices, templates of claims, and classes of devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_apimachinery.resource_claims import ADMIN_ACCESS_LABEL, MOST_DEVICES, MOST_RESERVATIONS
from tiphys_apiserver.registry.resource.device_requests import (
    MOST,
    asks_for_admin_access,
    claim_spec_errors,
    config_errors,
    default_requests,
    request_names,
    selector_errors,
)
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class ResourceClaimStrategy(Strategy):
    """The spec is for good; the status says who has what, and takes nothing back that is in use."""

    def apply_defaults(self, obj: Message) -> None:
        """One device for a request that does not say how many."""
        super().apply_defaults(obj)
        claim: Any = obj
        default_requests(claim.spec)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the requests."""
        claim: Any = obj
        errors = super().validate(ctx, obj) + list(claim_spec_errors(claim.spec, "spec"))
        return errors + list(_admin_access(self, ctx, claim.spec, "spec"))

    def validate_status_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Faults of the devices and of who may use them."""
        return super().validate_status_update(ctx, new, old) + list(_status_errors(new, old))


class ResourceClaimTemplateStrategy(Strategy):
    """As a claim, but for the status."""

    def apply_defaults(self, obj: Message) -> None:
        """One device for a request that does not say how many."""
        super().apply_defaults(obj)
        template: Any = obj
        template.spec.metadata.SetInParent()
        default_requests(template.spec.spec)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the requests."""
        template: Any = obj
        errors = super().validate(ctx, obj) + list(claim_spec_errors(template.spec.spec, "spec.spec"))
        return errors + list(_admin_access(self, ctx, template.spec.spec, "spec.spec"))


class DeviceClassStrategy(Strategy):
    """Conditions and settings."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of both."""
        return super().validate(ctx, obj) + list(_class_errors(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same."""
        return super().validate_update(ctx, new, old) + list(_class_errors(new))


def _class_errors(item: Any) -> Iterator[FieldError]:
    yield from selector_errors(item.spec.selectors, "spec.selectors")
    if len(item.spec.config) > MOST:
        yield FieldError.invalid("spec.config", len(item.spec.config), f"must have at most {MOST} items")
    for index, setting in enumerate(item.spec.config):
        yield from config_errors(setting.deviceConfiguration, f"spec.config[{index}]")


def _admin_access(strategy: Strategy, ctx: WriteContext, spec: Any, path: str) -> Iterator[FieldError]:
    places = list(asks_for_admin_access(spec))
    if not places:
        return
    namespace: Any = strategy.environment.objects.get_nowait(Namespace, ctx.namespace)
    if namespace is not None and namespace.metadata.labels.get(ADMIN_ACCESS_LABEL) == "true":
        return
    for index in places:
        why = f"admin access to devices requires the `{ADMIN_ACCESS_LABEL}: true` label on the containing namespace"
        yield FieldError.forbidden(f"{path}.devices.requests[{index}].exactly.adminAccess", why)


def _status_errors(new: Any, old: Any) -> Iterator[FieldError]:
    status, before = new.status, old.status
    has, had = status.HasField("allocation"), before.HasField("allocation")
    if has and had and status.allocation != before.allocation:
        yield FieldError.invalid("status.allocation", "<value omitted>", "field is immutable")
    if has and not had:
        if is_being_deleted(new):
            yield FieldError.forbidden("status.allocation", "may not be set because `deletionTimestamp` is set")
        yield from _allocation(new)
    if status.reservedFor and not has:
        yield FieldError.forbidden("status.reservedFor", "may not be specified when `allocated` is not set")
    yield from _reservations(new, old)
    yield from _device_statuses(new)


def _allocation(claim: Any) -> Iterator[FieldError]:
    known = set(request_names(claim.spec))
    results, path = claim.status.allocation.devices.results, "status.allocation.devices.results"
    if len(results) > MOST_DEVICES:
        yield FieldError.invalid(path, len(results), f"must have at most {MOST_DEVICES} items")
    for index, result in enumerate(results):
        if result.request not in known:
            why = (
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
            )
            yield FieldError.invalid(f"{path}[{index}].request", result.request, why)
        for name in ("driver", "pool", "device"):
            if not getattr(result, name):
                yield FieldError.required(f"{path}[{index}].{name}")


def _reservations(new: Any, old: Any) -> Iterator[FieldError]:
    users, path = new.status.reservedFor, "status.reservedFor"
    if len(users) > MOST_RESERVATIONS:
        yield FieldError.invalid(path, len(users), f"must have at most {MOST_RESERVATIONS} items")
    before = {user.uid for user in old.status.reservedFor}
    seen: set[str] = set()
    for index, user in enumerate(users):
        at = f"{path}[{index}]"
        for name in ("resource", "name", "uid"):
            if not getattr(user, name):
                yield FieldError.required(f"{at}.{name}")
        if user.uid in seen:
            yield FieldError.duplicate(f"{at}.uid", user.uid)
        seen.add(user.uid)
    if is_being_deleted(new) and seen - before:
        yield FieldError.forbidden(path, "no new reservations are allowed when `deletionTimestamp` is set")


def _device_statuses(claim: Any) -> Iterator[FieldError]:
    given = {(one.driver, one.pool, one.device) for one in claim.status.allocation.devices.results}
    for index, one in enumerate(claim.status.devices):
        if (one.driver, one.pool, one.device) not in given:
            where = f"status.devices[{index}]"
            yield FieldError.invalid(where, one.device, "must be an allocated device in the claim")
