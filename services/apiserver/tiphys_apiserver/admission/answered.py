"""Admission for what is answered and not stored: a token, which plug-ins may refuse as well as an object."""

from __future__ import annotations

from typing import Any, Protocol

from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.admission.interface import Admission, AdmissionAttributes, Operation
from tiphys_apiserver.authentication.interface import UserInfo


class _Answerer(Protocol):
    async def create(self, user: UserInfo, obj: Any, *, namespace: str, name: str) -> Any: ...


class AdmittedAnswerer:
    """Asks both passes of admission before the answerer; the same for every door."""

    def __init__(self, inner: _Answerer, admission: Admission, resource: ResourceInfo, subresource: str) -> None:
        self._inner = inner
        self._admission = admission
        self._resource = resource
        self._subresource = subresource

    async def create(self, user: UserInfo, obj: Any, *, namespace: str, name: str) -> Any:
        """The answer. Raises what admission and the answerer raise."""
        attributes = AdmissionAttributes(
            Operation.CREATE, self._resource, self._subresource, namespace, name, obj, None, user
        )
        await self._admission.admit(attributes)
        await self._admission.validate(attributes)
        return await self._inner.create(user, obj, namespace=namespace, name=name)
