"""The /scale of custom objects: the numbers stand where the definition says."""

from __future__ import annotations

from typing import Any

from tiphys_apimachinery.errors import InternalError
from tiphys_apiserver.crd import json_path
from tiphys_apiserver.crd.info import CustomInfo, ScalePaths

_MAX_REPLICAS = 2**31 - 1


def read(scale: Any, obj: Any, info: CustomInfo, *, may_lack: bool) -> Any:
    """Fill a Scale from the object. Raises InternalError where it has no wanted replicas and may not lack them."""
    paths = _paths(info)
    wanted = json_path.first(paths.spec_replicas, obj.content)
    if wanted is None and not may_lack:
        path = "." + ".".join(paths.spec_replicas)
        raise InternalError(f'the spec replicas field "{path}" does not exist')
    scale.spec.replicas = _number(wanted)
    scale.status.replicas = _number(json_path.first(paths.status_replicas, obj.content))
    selector = json_path.first(paths.selector, obj.content) if paths.selector else ""
    scale.status.selector = selector if isinstance(selector, str) else ""
    return scale


def write(obj: Any, wanted: Any, info: CustomInfo) -> None:
    """Set the wanted replicas of the object to those of a Scale."""
    json_path.put(_paths(info).spec_replicas, obj.content, wanted.spec.replicas)


def _paths(info: CustomInfo) -> ScalePaths:
    if info.scale is None:
        raise InternalError(f"{info.plural} have no scale")
    return info.scale


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return max(-_MAX_REPLICAS, min(int(value), _MAX_REPLICAS))
