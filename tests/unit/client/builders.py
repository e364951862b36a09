"""Small objects for the tests of this room."""

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.pod_pb2 import Pod


def config_map(name: str, namespace: str = "default", **data: str) -> ConfigMap:
    obj = ConfigMap(data=data)
    obj.metadata.name, obj.metadata.namespace = name, namespace
    return obj


def pod(name: str, namespace: str = "default", node: str = "", app: str = "") -> Pod:
    obj = Pod()
    obj.metadata.name, obj.metadata.namespace = name, namespace
    if app:
        obj.metadata.labels["app"] = app
    obj.spec.containers.add(name="main", image="busybox")
    if node:
        obj.spec.nodeName = node
    return obj
