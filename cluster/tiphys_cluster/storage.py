"""What a cluster offers those who claim storage: the hostpath driver, and a default class of its volumes.

Written out here, because making them from their messages would take `up` a third of a second; a test holds them to
`tiphys_csi.hostpath.manifests`, where they are decided.
"""

from __future__ import annotations

from typing import Any

from tiphys_cluster.api import Api
from tiphys_cluster.errors import ClusterError

_API = "storage.k8s.io/v1"
_HTTP_CREATED = 201
_HTTP_CONFLICT = 409

# Objects by their resource.
OBJECTS: dict[str, dict[str, Any]] = {
    "csidrivers": {
        "kind": "CSIDriver",
        "apiVersion": _API,
        "metadata": {"name": "hostpath.csi.tiphys.dev"},
        "spec": {
            "attachRequired": False,
            "podInfoOnMount": False,
            "volumeLifecycleModes": ["Persistent"],
            "fsGroupPolicy": "File",
        },
    },
    "storageclasses": {
        "kind": "StorageClass",
        "apiVersion": _API,
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "hostpath.csi.tiphys.dev",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "WaitForFirstConsumer",
    },
}


async def ensure_storage(api: Api) -> None:
    """Have the objects; what is there under their names is left as it is. Raises ClusterError."""
    for resource, wanted in OBJECTS.items():
        path = f"/apis/{_API}/{resource}"
        if await api.get_json(f"{path}/{wanted['metadata']['name']}") is not None:
            continue
        code, answer = await api.ask("POST", path, wanted)
        if code not in (_HTTP_CREATED, _HTTP_CONFLICT):
            raise ClusterError(f"cannot create a {wanted['kind']}: {answer.get('message', code)}")
