"""The gRPC services of custom resources: each is found by its name when it is called, as resources come and go.

tiphys.apiserver.custom.VERSION.PLURAL.GROUP has the methods of every resource's service; its messages are those of
tiphys/apiserver/v1/wire.proto, and its objects are tiphys.apiserver.v1.CustomObject.
"""

from __future__ import annotations

from typing import Any

import grpc

from tiphys_apimachinery.dynamic import SERVICES
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.rpc.resource_service import ResourceService
from tiphys_apiserver.rpc.special_methods import ScaleMethods
from tiphys_apiserver.server.chain import Chain


class CustomServices(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Answers with the method of a custom resource's service, or None for every other name."""

    def __init__(self, hall: Hall, chain: Chain) -> None:
        self._hall = hall
        self._chain = chain

    def service(self, handler_call_details: Any) -> Any:
        """The method that a call names."""
        name, _, method = handler_call_details.method.lstrip("/").partition("/")
        if not name.startswith(SERVICES):
            return None
        place = name.removeprefix(SERVICES).split(".", 2)
        if len(place) != 3:
            return None
        version, plural, group = place
        served = self._hall.table.find(group, version, plural)
        return None if served is None or not served.info.is_custom else self._methods(served).get(method)

    def _methods(self, served: Served) -> dict[str, Any]:
        service = ResourceService(self._hall, self._chain, served)
        methods = service.methods()
        if "scale" in served.info.subresources:
            methods |= ScaleMethods(service).methods()
        return methods
