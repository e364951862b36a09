"""The environment of a container. Pure: the objects that it refers to are handed in.

Source: the documented order. envFrom comes first, env overrides it, and service variables fill what is left; a value
may refer to any variable before it, and to those of services.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.container_pb2 import Container, EnvFromSource, EnvVar
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.downward import DownwardError, field_value, resource_value
from tiphys_kubelet.objects import ObjectKey, Objects
from tiphys_kubelet.runtime.expansion import expand

MASTER_SERVICE = ("default", "kubernetes")


class ConfigError(Exception):
    """The container can't be configured: something that it refers to is missing or wrong."""


@dataclass(frozen=True, slots=True)
class EnvContext:
    """What variables may be made of besides the pod."""

    objects: Objects = field(default_factory=dict)
    services: Sequence[Service] = ()
    pod_ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    allocatable: Mapping[str, Quantity] = field(default_factory=dict)


def make_env(pod: Pod, container: Container, context: EnvContext) -> dict[str, str]:
    """All variables in order. Raises ConfigError."""
    from_services = service_env(pod, context.services)
    env: dict[str, str] = {}
    for source in container.envFrom:
        env.update(_from_source(pod, source, context))
    for variable in container.env:
        value = _value(pod, container, variable, context=context, known=from_services | env)
        if value is not None:
            env[variable.name] = value
    return env | {name: value for name, value in from_services.items() if name not in env}


def _from_source(pod: Pod, source: EnvFromSource, context: EnvContext) -> Iterable[tuple[str, str]]:
    namespace = pod.metadata.namespace
    if source.HasField("configMapRef"):
        ref = source.configMapRef
        name = ref.localObjectReference.name
        config_map = context.objects.get(ObjectKey(ConfigMap, namespace, name))
        if isinstance(config_map, ConfigMap):
            return [(source.prefix + key, value) for key, value in sorted(config_map.data.items())]
        kind, optional = "configmap", ref.optional
    else:
        name, optional = source.secretRef.localObjectReference.name, source.secretRef.optional
        secret = context.objects.get(ObjectKey(Secret, namespace, name))
        if isinstance(secret, Secret):
            return [(source.prefix + key, _text(value)) for key, value in sorted(secret.data.items())]
        kind = "secret"
    if not optional:
        raise ConfigError(f'{kind} "{name}" not found')
    return ()


def _value(
    pod: Pod, container: Container, variable: EnvVar, *, context: EnvContext, known: Mapping[str, str]
) -> str | None:
    """None where an optional reference leads nowhere."""
    source = variable.valueFrom
    if not variable.HasField("valueFrom"):
        return expand(variable.value, known)
    try:
        if source.HasField("fieldRef"):
            path = source.fieldRef.fieldPath
            return field_value(pod, path, pod_ips=context.pod_ips, host_ips=context.host_ips)
        if source.HasField("resourceFieldRef"):
            return resource_value(pod, container, source.resourceFieldRef, context.allocatable)
    except DownwardError as err:
        raise ConfigError(str(err)) from err
    if source.HasField("configMapKeyRef"):
        return _config_map_value(pod, variable, context)
    if source.HasField("secretKeyRef"):
        return _secret_value(pod, variable, context)
    raise ConfigError(f"env {variable.name}: valueFrom names no source that is supported")


def _config_map_value(pod: Pod, variable: EnvVar, context: EnvContext) -> str | None:
    ref, namespace = variable.valueFrom.configMapKeyRef, pod.metadata.namespace
    name = ref.localObjectReference.name
    config_map = context.objects.get(ObjectKey(ConfigMap, namespace, name))
    if isinstance(config_map, ConfigMap) and ref.key in config_map.data:
        return config_map.data[ref.key]
    if ref.optional:
        return None
    if config_map is None:
        raise ConfigError(f'configmap "{name}" not found')
    raise ConfigError(f"couldn't find key {ref.key} in ConfigMap {namespace}/{name}")


def _secret_value(pod: Pod, variable: EnvVar, context: EnvContext) -> str | None:
    ref, namespace = variable.valueFrom.secretKeyRef, pod.metadata.namespace
    name = ref.localObjectReference.name
    secret = context.objects.get(ObjectKey(Secret, namespace, name))
    if isinstance(secret, Secret) and ref.key in secret.data:
        return _text(secret.data[ref.key])
    if ref.optional:
        return None
    if secret is None:
        raise ConfigError(f'secret "{name}" not found')
    raise ConfigError(f"couldn't find key {ref.key} in Secret {namespace}/{name}")


def _text(value: bytes) -> str:
    """A secret's bytes as a variable; the escape keeps bytes that are no UTF-8 through to the runtime."""
    return value.decode("utf-8", "surrogateescape")


def service_env(pod: Pod, services: Sequence[Service]) -> dict[str, str]:
    """The variables by which containers found services before there was DNS."""
    links = not pod.spec.HasField("enableServiceLinks") or pod.spec.enableServiceLinks
    env: dict[str, str] = {}
    for service in sorted(services, key=lambda s: s.metadata.name):
        meta, address = service.metadata, service.spec.clusterIP
        wanted = (meta.namespace, meta.name) == MASTER_SERVICE or (links and meta.namespace == pod.metadata.namespace)
        if wanted and address not in ("", "None") and service.spec.ports:
            env.update(_one_service(service, address))
    return env


def _one_service(service: Service, address: str) -> dict[str, str]:
    prefix = service.metadata.name.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    first = service.spec.ports[0]
    env = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(first.port)}
    for port in service.spec.ports:
        if port.name:
            env[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    protocol = (first.protocol or "TCP").lower()
    env[f"{prefix}_PORT"] = f"{protocol}://{host}:{first.port}"
    for port in service.spec.ports:
        protocol = port.protocol or "TCP"
        key = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        env[key] = f"{protocol.lower()}://{host}:{port.port}"
        env |= {f"{key}_PROTO": protocol.lower(), f"{key}_PORT": str(port.port), f"{key}_ADDR": address}
    return env
