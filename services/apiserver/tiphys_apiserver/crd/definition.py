"""What a CustomResourceDefinition must say. Pure.

Source: apiextensions pkg/apis/apiextensions/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tiphys_apimachinery import formats
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.admission.webhooks.hooks import endpoint_faults
from tiphys_apiserver.crd import json_path
from tiphys_apiserver.crd.schema_rules import schema_faults

FINALIZER: Final = "customresourcecleanup.apiextensions.k8s.io"
APPROVED: Final = "api-approved.kubernetes.io"
_PROTECTED: Final = (".k8s.io", ".kubernetes.io")
_MAX_SELECTABLE: Final = 8


def default(crd: Any) -> None:
    """Fill what the definition leaves open."""
    names = crd.spec.names
    if names.kind:
        if not names.singular:
            names.singular = names.kind.lower()
        if not names.listKind:
            names.listKind = f"{names.kind}List"
    if not crd.spec.HasField("conversion"):
        crd.spec.conversion.strategy = "None"


def faults(crd: Any) -> Iterator[FieldError]:
    """Every fault of a definition."""
    spec = crd.spec
    wanted = f"{spec.names.plural}.{spec.group}"
    if crd.metadata.name != wanted:
        yield FieldError.invalid("metadata.name", crd.metadata.name, 'must be spec.names.plural+"."+spec.group')
    if spec.group and "." not in spec.group:
        yield FieldError.invalid("spec.group", spec.group, "should be a domain with at least one dot")
    if spec.group.endswith(_PROTECTED) and not crd.metadata.annotations.get(APPROVED):
        yield FieldError.required(
            f"metadata.annotations[{APPROVED}]",
            f'protected groups must have approval annotation "{APPROVED}", see'
            " https://github.com/kubernetes/enhancements/pull/1111",
        )
    yield from _name_faults(spec.names)
    yield from _version_faults(spec)
    yield from _conversion_faults(spec)
    if spec.preserveUnknownFields:
        yield FieldError.invalid(
            "spec.preserveUnknownFields",
            True,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        )


def update_faults(new: Any, old: Any) -> Iterator[FieldError]:
    """What may not change: the names and the scope, once they are established, and versions still stored."""
    if new.spec.scope != old.spec.scope:
        yield FieldError.invalid("spec.scope", new.spec.scope, "field is immutable")
    if new.spec.names.kind != old.spec.names.kind:
        yield FieldError.invalid("spec.names.kind", new.spec.names.kind, "field is immutable")
    kept = {version.name for version in new.spec.versions}
    for index, name in enumerate(new.status.storedVersions):
        if name not in kept:
            yield FieldError.invalid(
                f"status.storedVersions[{index}]", name, "missing from spec.versions; "
                f"{name} was previously a storage version, and must remain in spec.versions until a storage migration"
                f" ensures no data remains persisted in {name} and removes {name} from status.storedVersions",
            )  # fmt: skip


def stored_faults(crd: Any) -> Iterator[FieldError]:
    """What is wrong with the versions that objects may be stored in."""
    path, stored = "status.storedVersions", list(crd.status.storedVersions)
    if not stored:
        yield FieldError.invalid(path, stored, "must have at least one stored version")
        return
    known = {version.name: version.storage for version in crd.spec.versions}
    for index, name in enumerate(stored):
        if name not in known:
            yield FieldError.invalid(f"{path}[{index}]", name, "must appear in spec.versions")
    for name, is_storage in known.items():
        if is_storage and name not in stored:
            yield FieldError.invalid(path, stored, f"must have the storage version {name}")


def remember_stored(crd: Any) -> None:
    """Add the version that is stored now to those that objects may be stored in."""
    for version in crd.spec.versions:
        if version.storage and version.name not in crd.status.storedVersions:
            crd.status.storedVersions.append(version.name)


def _name_faults(names: Any) -> Iterator[FieldError]:
    for member in ("plural", "singular", "kind", "listKind"):
        value = getattr(names, member)
        path = f"spec.names.{member}"
        if not value:
            yield FieldError.required(path)
            continue
        checked = value if member in ("plural", "singular") else value.lower()
        for why in formats.is_dns1035_label(checked):
            yield FieldError.invalid(path, value, why)
    for member in ("shortNames", "categories"):
        for index, value in enumerate(getattr(names, member)):
            for why in formats.is_dns1035_label(value):
                yield FieldError.invalid(f"spec.names.{member}[{index}]", value, why)
    if names.kind and names.kind == names.listKind:
        yield FieldError.invalid("spec.names.listKind", names.listKind, "kind and listKind may not be the same")


def _version_faults(spec: Any) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, version in enumerate(spec.versions):
        path = f"spec.versions[{index}]"
        if version.name in seen:
            yield FieldError.duplicate(f"{path}.name", version.name)
        seen.add(version.name)
        yield from _schema_faults(version, path)
        yield from _door_faults(version, path)
        if version.HasField("deprecationWarning") and not version.deprecated:
            yield FieldError.invalid(
                f"{path}.deprecationWarning", version.deprecationWarning, "can only be set for deprecated versions"
            )
    if spec.versions and sum(version.storage for version in spec.versions) != 1:
        listed = json_codec.to_json(spec, with_type_meta=False).get("versions", [])
        names = [version["name"] for version in listed]
        yield FieldError.invalid("spec.versions", names, "must have exactly one version marked as storage version")


def _schema_faults(version: Any, path: str) -> Iterator[FieldError]:
    if not version.schema.HasField("openAPIV3Schema"):
        yield FieldError.required(f"{path}.schema.openAPIV3Schema", "schemas are required")
        return
    schema = json_codec.to_json(version.schema.openAPIV3Schema, with_type_meta=False)
    yield from schema_faults(schema, f"{path}.schema.openAPIV3Schema")


def _door_faults(version: Any, path: str) -> Iterator[FieldError]:
    for index, column in enumerate(version.additionalPrinterColumns):
        yield from _path_faults(column.jsonPath, f"{path}.additionalPrinterColumns[{index}].jsonPath")
    if len(version.selectableFields) > _MAX_SELECTABLE:
        yield FieldError.too_many(f"{path}.selectableFields", len(version.selectableFields), _MAX_SELECTABLE)
    for index, field in enumerate(version.selectableFields):
        place = f"{path}.selectableFields[{index}].jsonPath"
        if not field.jsonPath:
            yield FieldError.required(place, "must be a simple json path to a field")
            continue
        faulty = list(_path_faults(field.jsonPath, place))
        yield from faulty
        if not faulty and not _leads_to_scalar(version, json_path.members(json_path.parse(field.jsonPath))):
            yield FieldError.invalid(
                place, field.jsonPath, "is an invalid path: must point to a string, boolean or integer field"
            )
    if version.subresources.HasField("scale"):
        scale = version.subresources.scale
        for member, begins in (
            ("specReplicasPath", ".spec."),
            ("statusReplicasPath", ".status."),
            ("labelSelectorPath", (".spec.", ".status.")),
        ):
            text = getattr(scale, member)
            place = f"{path}.subresources.scale.{member}"
            if text and not text.startswith(begins):
                first = begins if isinstance(begins, str) else " or ".join(begins)
                yield FieldError.invalid(place, text, f"should be a json path under {first.rstrip('.')}")
            elif text:
                faulty = list(_path_faults(text, place))
                yield from faulty
                if not faulty and json_path.members(json_path.parse(text)) is None:
                    yield FieldError.invalid(place, text, "should be a simple json path without array notation")


def _path_faults(text: str, path: str) -> Iterator[FieldError]:
    if not text:
        return
    try:
        json_path.parse(text)
    except json_path.BadPath as err:
        yield FieldError.invalid(path, text, str(err))


def _leads_to_scalar(version: Any, names: tuple[str, ...] | None) -> bool:
    if not names or not version.schema.HasField("openAPIV3Schema"):
        return False
    schema: Any = json_codec.to_json(version.schema.openAPIV3Schema, with_type_meta=False)
    if names[0] == "metadata":
        return False
    for name in names:
        schema = (schema.get("properties") or {}).get(name)
        if schema is None:
            return False
    return schema.get("type") in ("string", "boolean", "integer")


def _conversion_faults(spec: Any) -> Iterator[FieldError]:
    conversion = spec.conversion
    if conversion.strategy == "None" and conversion.HasField("webhook"):
        yield FieldError.forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook")
    if conversion.strategy == "Webhook":
        path = "spec.conversion.webhook.clientConfig"
        if not conversion.webhook.HasField("clientConfig"):
            yield FieldError.required(path, "required when strategy is set to Webhook")
        else:
            yield from endpoint_faults(conversion.webhook.clientConfig, path)
        reviews = list(conversion.webhook.conversionReviewVersions)
        if not reviews:
            yield FieldError.required("spec.conversion.webhook.conversionReviewVersions")
        elif "v1" not in reviews:
            yield FieldError.invalid(
                "spec.conversion.webhook.conversionReviewVersions", reviews, "must include at least one of v1"
            )
