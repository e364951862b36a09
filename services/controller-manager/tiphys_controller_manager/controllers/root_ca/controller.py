"""Puts the cluster's authority into each namespace, where pods find it beside their tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import config_map_pb2, namespace_pb2
from tiphys_apimachinery.errors import AlreadyExists, APIError
from tiphys_apimachinery.meta import is_being_deleted, join_key
from tiphys_client.controller import Terminal
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pod_control import is_namespace_ending

NAME: Final = "kube-root-ca.crt"
DATA_KEY: Final = "ca.crt"
# Source: kubernetes pkg/controller/certificates/rootcacertpublisher/publisher.go.
DESCRIPTION_KEY: Final = "kubernetes.io/description"
DESCRIPTION: Final = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the"
    " internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes"
    " clusters."
)


class RootCAController:
    """Keys are names of namespaces."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._authority = context.authority
        self._namespaces = context.informers.of(namespace_pb2.Namespace)
        self._config_maps = context.informers.of(config_map_pb2.ConfigMap)
        self._clock, self._metrics = context.clock, context.metrics

    def watches(self) -> Iterable[Watch]:
        """Namespaces, and the ConfigMaps of our name."""
        return (Watch(namespace_pb2.Namespace, own_key), Watch(config_map_pb2.ConfigMap, _touched))

    def first_keys(self) -> Iterable[str]:
        """None: every namespace is seen as added."""
        return ()

    async def reconcile(self, key: str) -> None:
        """Ensure the ConfigMap of one namespace, and what it says."""
        if not self._authority:
            raise Terminal("there is no authority to publish: give --root-ca-file")
        namespace = self._namespaces.get(key)
        if namespace is None or is_being_deleted(namespace):
            return
        began, code = self._clock.monotonic(), "200"
        try:
            await self._publish(key)
        except APIError as err:
            code = str(err.code)
            raise
        finally:
            self._metrics.root_ca_syncs.labels(code).inc()
            self._metrics.root_ca_seconds.labels(code).observe(self._clock.monotonic() - began)

    async def _publish(self, key: str) -> None:
        known = self._config_maps.get(join_key(key, NAME))
        if known is not None:
            if known.data != {DATA_KEY: self._authority}:
                known.data.clear()
                known.data[DATA_KEY] = self._authority
                known.metadata.annotations[DESCRIPTION_KEY] = DESCRIPTION
                await self._client.update(known)
            return
        made = config_map_pb2.ConfigMap()
        made.metadata.namespace, made.metadata.name = key, NAME
        made.metadata.annotations[DESCRIPTION_KEY] = DESCRIPTION
        made.data[DATA_KEY] = self._authority
        try:
            await self._client.create(made)
        except AlreadyExists:
            return
        except APIError as err:
            if not is_namespace_ending(err):
                raise


def _touched(old: Any, new: Any) -> Iterable[str]:
    obj = new if new is not None else old
    return (obj.metadata.namespace,) if obj.metadata.name == NAME else ()
