"""What deployments, replica sets and the like have in common: a selector and a template that must fit it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.field_error import quote
from tiphys_apimachinery.labels import SelectorError, from_label_selector
from tiphys_apiserver.registry.core.pod_defaults import default_pod_spec
from tiphys_apiserver.registry.core.pod_spec_validation import validate_template
from tiphys_apiserver.registry.core.scheduling_validation import validate_label_selector
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

ALWAYS = "Always"


def selector_errors(selector: Any, labels: Any, kind: str, path: str = "spec") -> Iterator[FieldError]:
    """Faults of a LabelSelector over the pods of a template: malformed, empty, or not true of the template itself."""
    where = f"{path}.selector"
    faults = list(validate_label_selector(selector, where))
    yield from faults
    if not selector.matchLabels and not selector.matchExpressions:
        yield FieldError.invalid(where, {}, f"empty selector is invalid for {kind}")
        return
    if faults:
        return
    try:
        fits = from_label_selector(selector).matches(labels)
    except SelectorError as err:
        yield FieldError.invalid(where, "", str(err))
        return
    if not fits:
        yield mismatch(path, labels)


def mismatch(path: str, labels: Any) -> FieldError:
    """The fault of a selector that does not take the pods of its own template."""
    return FieldError.invalid(
        f"{path}.template.metadata.labels", dict(labels), "`selector` does not match template `labels`"
    )


def template_errors(
    template: Any, kind: str, path: str = "spec.template", *, policies: Sequence[str] = (ALWAYS,)
) -> Iterator[FieldError]:
    """Faults of the template, with the restart policies that the kind allows."""
    yield from validate_template(template, path)
    policy = template.spec.restartPolicy
    if policy == ALWAYS != policies[0]:
        # What an author left open was filled with Always: to them the field is missing.
        names = ", ".join(quote(name) for name in policies)
        yield FieldError.required(f"{path}.spec.restartPolicy", f"valid values: {names}")
    elif policy and policy not in policies:
        yield FieldError.not_supported(f"{path}.spec.restartPolicy", policy, policies)
    if ALWAYS in policies and template.spec.HasField("activeDeadlineSeconds"):
        yield FieldError.forbidden(
            f"{path}.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {kind} is not Supported"
        )


class PodOwnerStrategy(Strategy):
    """Base of kinds with spec.selector and spec.template; a subclass names the kind and adds its own rules."""

    kind_in_words = "replica set"

    def apply_defaults(self, obj: Message) -> None:
        """The schema's defaults, then the template's."""
        super().apply_defaults(obj)
        owner: Any = obj
        default_pod_spec(owner.spec.template.spec)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of selector, template, and what the kind adds."""
        return super().validate(ctx, obj) + self._all_errors(obj)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed object; that the selector stays is the schema's rule."""
        return super().validate_update(ctx, new, old) + self._all_errors(new)

    def _all_errors(self, obj: Any) -> list[FieldError]:
        errors: list[FieldError] = []
        labels = obj.spec.template.metadata.labels
        if obj.spec.HasField("selector"):
            errors += selector_errors(obj.spec.selector, labels, self.kind_in_words)
        else:
            # That it is missing is the schema's finding; that nothing is selected then is said too, as upstream does.
            errors.append(mismatch("spec", labels))
        errors += template_errors(self.whole_template(obj), self.resource.kind)
        errors += self.own_errors(obj)
        return errors

    def whole_template(self, obj: Any) -> Any:
        """The template with all that its pods will have."""
        return obj.spec.template

    def own_errors(self, obj: Any) -> Iterator[FieldError]:
        """Faults that only this kind knows."""
        yield from ()
