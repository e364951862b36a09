"""Which form an answer takes, and in which a body comes: Accept and Content-Type."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache

from tiphys_apimachinery.errors import NotAcceptable, UnsupportedMediaType


class Media(enum.Enum):
    """A way to write objects; the value is its media type."""

    JSON = "application/json"
    YAML = "application/yaml"
    PROTOBUF = "application/vnd.kubernetes.protobuf"


# What as= may ask for instead of the object itself.
TABLE = "Table"
PARTIAL = "PartialObjectMetadata"
PARTIAL_LIST = "PartialObjectMetadataList"
_AS_KINDS = frozenset({TABLE, PARTIAL, PARTIAL_LIST})
_AS_VERSIONS = frozenset({"v1", "v1beta1"})
_ACCEPTED = tuple(media.value for media in Media)
_ANY = frozenset({"*/*", "application/*", "*"})
_BY_TYPE = {media.value: media for media in Media} | {"text/yaml": Media.YAML, "application/x-yaml": Media.YAML}


@dataclass(frozen=True, slots=True)
class Format:
    """The form of an answer: media, and as_kind where a Table or mere metadata is asked for."""

    media: Media = Media.JSON
    as_kind: str = ""
    as_version: str = "v1"
    # Read from as=APIGroupDiscoveryList; discovery looks at it.
    aggregated: str = ""


JSON_FORMAT = Format()


@lru_cache(maxsize=512)
def choose_format(accept: str, *, tables: bool = True, protobuf: bool = True) -> Format:
    """The first form in the Accept header that can be made, by quality, then order.

    tables is False for what has no Table or metadata form, protobuf for objects that no contract describes.
    Raises NotAcceptable.
    """
    if not accept:
        return JSON_FORMAT
    for clause in _by_quality(accept):
        found = _read_clause(clause, tables)
        if found is not None and (protobuf or found.media is not Media.PROTOBUF or found.as_kind):
            return found
    raise NotAcceptable.of(_ACCEPTED if protobuf else (Media.JSON.value, Media.YAML.value))


def _by_quality(accept: str) -> list[str]:
    clauses = [clause.strip() for clause in accept.split(",")]
    if ";q=" not in accept.replace(" ", ""):
        return clauses
    return sorted(clauses, key=_quality, reverse=True)


def _quality(clause: str) -> float:
    for parameter in clause.replace(" ", "").split(";")[1:]:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _read_clause(clause: str, tables: bool) -> Format | None:
    kind, *rest = clause.split(";")
    media = Media.JSON if kind.strip().lower() in _ANY else _BY_TYPE.get(kind.strip().lower())
    if media is None:
        return None
    parameters = dict(part.strip().partition("=")[::2] for part in rest)
    wanted = parameters.get("as", "")
    if not wanted:
        return Format(media)
    group, version = parameters.get("g", ""), parameters.get("v", "")
    if group == "apidiscovery.k8s.io" and wanted == "APIGroupDiscoveryList":
        # Nothing but the stable version is spoken; old clients go on with the plain documents.
        return Format(media, aggregated=version) if version == "v2" and media is Media.JSON else None
    if not tables or group != "meta.k8s.io" or wanted not in _AS_KINDS or version not in _AS_VERSIONS:
        return None
    if wanted == TABLE and media is Media.PROTOBUF:
        return None
    return Format(media, wanted, version)


@lru_cache(maxsize=128)
def body_media(content_type: str) -> Media:
    """The media of a body; JSON where nothing is said. Raises UnsupportedMediaType."""
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        return Media.JSON
    media = _BY_TYPE.get(kind)
    if media is None:
        raise UnsupportedMediaType.of(_ACCEPTED)
    return media
