"""The error by which a plug-in refuses a write."""

from __future__ import annotations

from typing import Any

from tiphys_apimachinery.errors import Forbidden
from tiphys_apiserver.admission.interface import AdmissionAttributes


def refuse(attributes: AdmissionAttributes, why: str) -> Forbidden:
    """403 that names the resource and the object; a name still to be generated shows as its prefix."""
    name = attributes.name
    if not name:
        metadata: Any = getattr(attributes.object, "metadata", None)
        name = (metadata.name or metadata.generateName) if metadata is not None else ""
    return Forbidden.of(attributes.resource.plural, name or "Unknown", why, group=attributes.resource.group)
