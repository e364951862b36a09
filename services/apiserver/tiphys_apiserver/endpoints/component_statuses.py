"""componentstatuses: how the parts of the control plane are, as `kubectl get componentstatuses` still asks.

Nothing is stored and nobody is dialled: the store is asked for its revision, and a component that
elects a leader shows that it lives by renewing its Lease.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from tiphys.api.coordination.v1.coordination_pb2 import Lease
from tiphys.api.core.v1 import component_status_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import to_datetime
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.interface import StorageError
from tiphys_component.clock import Clock

_NAMESPACE = "kube-system"
# Name of the component, and of its lease.
_ELECTED = {"controller-manager": "kube-controller-manager", "scheduler": "kube-scheduler"}
_STORE = "etcd-0"


class ComponentStatuses:
    """Answers for the store and for each elected component. ``check_store`` raises when the store does not answer."""

    def __init__(
        self,
        info: ResourceInfo,
        objects: ObjectAccess,
        clock: Clock,
        check_store: Callable[[], Awaitable[object]],
    ) -> None:
        self.info = info
        self._objects = objects
        self._clock = clock
        self._check_store = check_store

    async def get(self, call: Call) -> Any:
        """One component. Raises NotFound."""
        name = call.info.name
        if name == _STORE:
            return await self._store()
        if name in _ELECTED:
            return self._elected(name)
        raise NotFound.of(self.info.plural, name)

    async def list(self, call: Call) -> Sequence[Any]:
        """Every component, by name."""
        return [self._elected(name) for name in sorted(_ELECTED)] + [await self._store()]

    async def _store(self) -> Any:
        try:
            await self._check_store()
        except StorageError as err:
            return _status(_STORE, error=str(err))
        return _status(_STORE)

    def _elected(self, name: str) -> Any:
        lease: Any = self._objects.get_nowait(Lease, _ELECTED[name], _NAMESPACE)
        if lease is None or not lease.spec.HasField("renewTime"):
            return _status(name, error=f"no lease {_NAMESPACE}/{_ELECTED[name]}: the component has not been started")
        renewed = to_datetime(lease.spec.renewTime)
        lives_s = lease.spec.leaseDurationSeconds
        if renewed is None or self._clock.now() - renewed > timedelta(seconds=lives_s):
            return _status(name, error=f"lease not renewed within its {lives_s} s")
        return _status(name)


def _status(name: str, *, error: str = "") -> Any:
    made: Any = component_status_pb2.ComponentStatus()
    made.metadata.name = name
    condition = made.conditions.add(type="Healthy", status="False" if error else "True")
    if error:
        condition.error = error
    else:
        condition.message = "ok"
    return made
