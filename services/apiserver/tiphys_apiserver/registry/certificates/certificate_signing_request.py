"""Certificate signing requests: who asks is written by the server, who answers by subresources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.meta import to_time
from tiphys_apiserver.registry.strategy import Strategy, WriteContext, copy_field

APPROVAL = "approval"
_JUDGEMENTS = ("Approved", "Denied")
_PEM_BEGIN = b"-----BEGIN CERTIFICATE REQUEST-----"
_MIN_LIFETIME_S = 600


class CertificateSigningRequestStrategy(Strategy):
    """The rules of signing requests."""

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """Write down who asks."""
        super().prepare_for_create(ctx, obj)
        request: Any = obj
        spec = request.spec
        for name in ("username", "uid", "groups", "extra"):
            spec.ClearField(name)
        spec.username = ctx.user.name
        spec.uid = ctx.user.uid
        spec.groups.extend(ctx.user.groups)
        for key, values in ctx.user.extra.items():
            spec.extra[key].items.extend(values)

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Nothing but metadata may change here."""
        super().prepare_for_update(ctx, new, old)
        copy_field(new, old, "spec")

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the request and its signer."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def prepare_for_status_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """The signer writes the certificate; judgements are not its to make."""
        super().prepare_for_status_update(ctx, new, old)
        kept = [condition for condition in new.status.conditions if condition.type not in _JUDGEMENTS]
        judged = [condition for condition in old.status.conditions if condition.type in _JUDGEMENTS]
        del new.status.conditions[:]
        new.status.conditions.extend([*judged, *kept])
        _stamp(ctx, new, old)

    def validate_status_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """A certificate once given stays."""
        errors = super().validate_status_update(ctx, new, old)
        if old.status.certificate and new.status.certificate != old.status.certificate:
            errors.append(FieldError.forbidden("status.certificate", "updates may not modify a set certificate"))
        return errors

    def prepare_for_subresource_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """approval changes conditions and nothing else."""
        conditions = list(new.status.conditions)
        metadata = type(new.metadata)()
        metadata.CopyFrom(new.metadata)
        new.CopyFrom(old)
        new.metadata.CopyFrom(metadata)
        del new.status.conditions[:]
        new.status.conditions.extend(conditions)
        _stamp(ctx, new, old)

    def validate_subresource_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """A request is approved or denied, not both, and never back."""
        errors = []
        before = {condition.type for condition in old.status.conditions if condition.type in _JUDGEMENTS}
        after = {condition.type for condition in new.status.conditions if condition.type in _JUDGEMENTS}
        if len(after) > 1:
            errors.append(
                FieldError.invalid(
                    "status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive"
                )
            )
        for gone in sorted(before - after):
            errors.append(
                FieldError.forbidden("status.conditions", f'updates may not remove a condition of type "{gone}"')
            )
        return errors


def _stamp(ctx: WriteContext, new: Any, old: Any) -> None:
    known = {condition.type: condition for condition in old.status.conditions}
    for condition in new.status.conditions:
        before = known.get(condition.type)
        if not condition.HasField("lastUpdateTime"):
            condition.lastUpdateTime.CopyFrom(to_time(ctx.now))
        if condition.HasField("lastTransitionTime"):
            continue
        same = before is not None and before.status == condition.status and before.HasField("lastTransitionTime")
        if same and before is not None:
            condition.lastTransitionTime.CopyFrom(before.lastTransitionTime)
        else:
            condition.lastTransitionTime.CopyFrom(to_time(ctx.now))


def _faults(request: Any) -> Iterator[FieldError]:
    spec = request.spec
    path = "spec.request"
    if not spec.request.strip().startswith(_PEM_BEGIN):
        yield FieldError.invalid(path, "", "PEM block type must be CERTIFICATE REQUEST")
    else:
        try:
            x509.load_pem_x509_csr(spec.request)
        except (ValueError, UnsupportedAlgorithm) as err:
            yield FieldError.invalid(path, "", str(err))
    if not spec.usages:
        yield FieldError.required("spec.usages", "usages are required for all CSRs other than legacy ones")
    for index, usage in enumerate(spec.usages):
        if usage in spec.usages[:index]:
            yield FieldError.duplicate(f"spec.usages[{index}]", usage)
    yield from _signer(spec.signerName)
    if spec.HasField("expirationSeconds") and spec.expirationSeconds < _MIN_LIFETIME_S:
        yield FieldError.invalid(
            "spec.expirationSeconds",
            spec.expirationSeconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        )


def _signer(name: str) -> Iterator[FieldError]:
    if not name:
        return
    domain, slash, rest = name.partition("/")
    if not slash or not rest or "/" in rest:
        yield FieldError.invalid(
            "spec.signerName", name, "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        )
        return
    for why in validation.is_dns1123_subdomain(domain):
        yield FieldError.invalid("spec.signerName", name, f"validating label {domain!r}: {why}")
