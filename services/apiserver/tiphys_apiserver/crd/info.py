"""What the server knows of a custom resource, in the form in which it knows every resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiphys_apimachinery.dynamic import DynamicKind, DynamicObject, new_class
from tiphys_apimachinery.scheme import KindInfo, ResourceInfo, Subresource
from tiphys_apiserver.crd import columns, json_path
from tiphys_apiserver.crd.columns import Cells
from tiphys_apiserver.crd.schema import VersionSchema

VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_DOOR_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where the numbers of /scale are in the object; names of members. selector is empty where there is none."""

    spec_replicas: tuple[str, ...]
    status_replicas: tuple[str, ...]
    selector: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomKindInfo(KindInfo):
    """A kind whose class was made at run time."""

    cls: type[Any] = DynamicObject

    @property
    def message(self) -> type[Any]:
        """The class of the objects."""
        return self.cls


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomInfo(ResourceInfo):
    """One version of a custom resource."""

    schema: VersionSchema
    list_name: str
    printer: Cells
    scale: ScalePaths | None = None
    # Steps to each of selectable_fields.
    field_paths: tuple[tuple[Any, ...], ...] = ()
    warning: str = ""
    # The version that all versions are stored in.
    storage_version: str = ""

    @property
    def is_custom(self) -> bool:
        """Whether the kind was defined at run time."""
        return True

    @property
    def deprecation(self) -> str:
        """What every caller is warned of."""
        return self.warning

    @property
    def stored_version(self) -> str:
        """The version that all versions are stored in."""
        return self.storage_version

    @property
    def list_kind(self) -> str:
        """Kind of a list of the objects."""
        return self.list_name

    @property
    def cells(self) -> Cells:
        """What makes the cells of a Table's row."""
        return self.printer

    @property
    def storage_key_prefix(self) -> str:
        """Where objects are stored; the same as in Kubernetes."""
        return f"/registry/{self.group}/{self.plural}"


def info_of(crd: Any, version: Any, schema: VersionSchema, *, storage_version: str) -> CustomInfo:
    """What a definition says of one of its versions."""
    spec = crd.spec
    names = crd.status.acceptedNames if crd.status.acceptedNames.plural else spec.names
    doors = version.subresources
    kind = DynamicKind(spec.group, version.name, names.kind, schema, doors.HasField("status"), names.plural)
    fields = [field.jsonPath for field in version.selectableFields]
    return CustomInfo(
        group=spec.group,
        version=version.name,
        plural=names.plural,
        singular=names.singular,
        kind=names.kind,
        namespaced=spec.scope == "Namespaced",
        kind_info=CustomKindInfo(
            group=spec.group,
            version=version.name,
            kind=names.kind,
            role="object",
            full_name=f"{names.kind}.{version.name}.{spec.group}",
            file="",
            cls=new_class(kind),
        ),
        list_info=None,
        short_names=tuple(names.shortNames),
        categories=tuple(names.categories),
        verbs=VERBS,
        subresources=_subresources(names.kind, doors),
        columns=columns.columns_of(version.additionalPrinterColumns),
        selectable_fields=tuple(path.removeprefix(".") for path in fields),
        schema=schema,
        list_name=names.listKind or f"{names.kind}List",
        printer=columns.cells_of(version.additionalPrinterColumns),
        scale=_scale_paths(doors.scale) if doors.HasField("scale") else None,
        field_paths=tuple(json_path.parse(path) for path in fields),
        warning=_deprecation(crd, version),
        storage_version=storage_version,
    )


def _subresources(kind: str, doors: Any) -> dict[str, Subresource]:
    found: dict[str, Subresource] = {}
    if doors.HasField("status"):
        found["status"] = Subresource("status", kind, verbs=_DOOR_VERBS)
    if doors.HasField("scale"):
        found["scale"] = Subresource("scale", "Scale", group="autoscaling", version="v1", verbs=_DOOR_VERBS)
    return found


def _scale_paths(scale: Any) -> ScalePaths:
    def names(path: str) -> tuple[str, ...]:
        return json_path.members(json_path.parse(path)) or ()

    selector = names(scale.labelSelectorPath) if scale.labelSelectorPath else ()
    return ScalePaths(names(scale.specReplicasPath), names(scale.statusReplicasPath), selector)


def _deprecation(crd: Any, version: Any) -> str:
    if not version.deprecated:
        return ""
    if version.HasField("deprecationWarning"):
        return str(version.deprecationWarning)
    return f"{crd.spec.group}/{version.name} {crd.spec.names.kind} is deprecated"
