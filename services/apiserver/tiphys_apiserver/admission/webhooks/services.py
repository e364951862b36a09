"""Where the services that webhooks name can be reached."""

from __future__ import annotations

from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.errors import NotFound
from tiphys_apiserver.admission.webhooks.caller import CallFailed
from tiphys_apiserver.registry.objects import ObjectAccess

_EXTERNAL_NAME = "ExternalName"
_NONE = "None"


class ServiceAddresses:
    """Resolves a service to its cluster address, as every client in the cluster does."""

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects

    async def resolve(self, service: tuple[str, str], port: int) -> tuple[str, int]:
        """Host and port. Raises CallFailed for a service or port that is not there."""
        namespace, name = service
        try:
            found = await self._objects.get(Service, name, namespace)
        except NotFound as err:
            raise CallFailed(str(err)) from err
        if found.spec.type == _EXTERNAL_NAME:
            return found.spec.externalName, port
        if not any(item.port == port for item in found.spec.ports):
            raise CallFailed(f'no service port {port} found for service "{name}"')
        if found.spec.clusterIP in ("", _NONE):
            raise CallFailed(f'cannot route to service "{name}" with ClusterIP "{found.spec.clusterIP}"')
        return found.spec.clusterIP, port
