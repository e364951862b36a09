"""What drivers offer: slices of pools of devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from tiphys_apimachinery.cel.library.kubernetes import is_semver
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.formats import is_dns1123_subdomain
from tiphys_apiserver.registry.core.scheduling_validation import validate_node_selector
from tiphys_apiserver.registry.resource.device_requests import qualified_name_errors
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Source: k8s.io/api resource/v1, ResourceSliceMaxDevices and the like.
MOST_DEVICES: Final = 128
MOST_FACTS: Final = 32
MOST_TAINTS: Final = 16
LONGEST_TEXT: Final = 64
LONGEST_DRIVER: Final = 63
LONGEST_POOL: Final = 253
_OF_SLICE: Final = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_OF_DEVICE: Final = ("nodeName", "nodeSelector", "allNodes")


class ResourceSliceStrategy(Strategy):
    """The rules of slices."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of pool, nodes and devices."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same; driver, pool and node stay."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(item: Any) -> Iterator[FieldError]:
    spec = item.spec
    if len(spec.driver) > LONGEST_DRIVER:
        yield FieldError.too_long("spec.driver", LONGEST_DRIVER)
    yield from _pool_name(spec.pool.name)
    yield from _one_way(spec, _OF_SLICE, "spec")
    if len(spec.devices) > MOST_DEVICES:
        yield FieldError.invalid("spec.devices", len(spec.devices), f"must have at most {MOST_DEVICES} items")
    names: set[str] = set()
    for index, device in enumerate(spec.devices):
        path = f"spec.devices[{index}]"
        if device.name in names:
            yield FieldError.duplicate(f"{path}.name", device.name)
        names.add(device.name)
        yield from _device(device, path, says_where=spec.perDeviceNodeSelection)
    sets: set[str] = set()
    for index, counters in enumerate(spec.sharedCounters):
        if counters.name in sets:
            yield FieldError.duplicate(f"spec.sharedCounters[{index}].name", counters.name)
        sets.add(counters.name)


def _pool_name(name: str) -> Iterator[FieldError]:
    if len(name) > LONGEST_POOL:
        yield FieldError.too_long("spec.pool.name", LONGEST_POOL)
        return
    for part in name.split("/") if name else ():
        for why in is_dns1123_subdomain(part):
            yield FieldError.invalid("spec.pool.name", part, why)


def _one_way(item: Any, ways: Sequence[str], path: str) -> Iterator[FieldError]:
    """Exactly one way to say from which nodes."""
    said = [name for name in ways if item.HasField(name)]
    if not said:
        yield FieldError.required(path, f"exactly one of {', '.join(f'`{name}`' for name in ways)} is required")
    elif len(said) > 1:
        yield FieldError.invalid(
            path, f"{{{', '.join(said)}}}", f"exactly one of {', '.join(f'`{name}`' for name in ways)} is required"
        )
    if item.HasField("nodeName"):
        if not item.nodeName:
            yield FieldError.required(f"{path}.nodeName")
        for why in is_dns1123_subdomain(item.nodeName) if item.nodeName else ():
            yield FieldError.invalid(f"{path}.nodeName", item.nodeName, why)
    for name in ("allNodes", "perDeviceNodeSelection"):
        if name in said and not getattr(item, name):
            yield FieldError.invalid(f"{path}.{name}", False, "must be either unset or set to true")
    if item.HasField("nodeSelector"):
        yield from validate_node_selector(item.nodeSelector, f"{path}.nodeSelector")
        if len(item.nodeSelector.nodeSelectorTerms) > 1:
            where = f"{path}.nodeSelector.nodeSelectorTerms"
            yield FieldError.invalid(where, len(item.nodeSelector.nodeSelectorTerms), "must have exactly one term")


def _device(device: Any, path: str, *, says_where: bool) -> Iterator[FieldError]:
    if says_where:
        yield from _one_way(device, _OF_DEVICE, path)
    else:
        for name in _OF_DEVICE:
            if device.HasField(name):
                why = "`perDeviceNodeSelection` must be set to true in the ResourceSlice spec"
                yield FieldError.invalid(f"{path}.{name}", str(getattr(device, name)), why)
    count = len(device.attributes) + len(device.capacity)
    if count > MOST_FACTS:
        why = f"the total number of attributes and capacities must not exceed {MOST_FACTS}"
        yield FieldError.invalid(path, count, why)
    for name in sorted(device.attributes):
        at = f"{path}.attributes[{name}]"
        yield from qualified_name_errors(name, at)
        yield from _attribute(device.attributes[name], at)
    for name in sorted(device.capacity):
        yield from qualified_name_errors(name, f"{path}.capacity[{name}]")
    if len(device.taints) > MOST_TAINTS:
        yield FieldError.invalid(f"{path}.taints", len(device.taints), f"must have at most {MOST_TAINTS} items")


def _attribute(value: Any, path: str) -> Iterator[FieldError]:
    given = [name for name in ("int", "bool", "string", "version") if value.HasField(name)]
    if len(given) != 1:
        yield FieldError.invalid(path, f"{{{', '.join(given)}}}", "exactly one value must be specified")
        return
    text = getattr(value, given[0])
    if isinstance(text, str) and len(text) > LONGEST_TEXT:
        yield FieldError.too_long(f"{path}.{given[0]}", LONGEST_TEXT)
    elif given[0] == "version" and not is_semver(text):
        yield FieldError.invalid(f"{path}.version", text, "must be a string compatible with semver.org spec 2.0.0")
