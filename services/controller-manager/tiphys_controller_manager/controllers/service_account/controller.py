"""Gives each namespace its service account `default`, and gives it again when it was deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import namespace_pb2, service_account_pb2
from tiphys_apimachinery.errors import AlreadyExists, APIError
from tiphys_apimachinery.meta import is_being_deleted, join_key
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pod_control import is_namespace_ending

DEFAULT: Final = "default"


class ServiceAccountController:
    """Keys are names of namespaces."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._namespaces = context.informers.of(namespace_pb2.Namespace)
        self._accounts = context.informers.of(service_account_pb2.ServiceAccount)

    def watches(self) -> Iterable[Watch]:
        """Namespaces, and the end of their default accounts."""
        return (Watch(namespace_pb2.Namespace, own_key), Watch(service_account_pb2.ServiceAccount, _lost))

    def first_keys(self) -> Iterable[str]:
        """None: every namespace is seen as added."""
        return ()

    async def reconcile(self, key: str) -> None:
        """Ensure the account of one namespace."""
        namespace = self._namespaces.get(key)
        if namespace is None or is_being_deleted(namespace) or self._accounts.get(join_key(key, DEFAULT)) is not None:
            return
        account = service_account_pb2.ServiceAccount()
        account.metadata.namespace, account.metadata.name = key, DEFAULT
        try:
            await self._client.create(account)
        except AlreadyExists:
            return
        except APIError as err:
            if not is_namespace_ending(err):
                raise


def _lost(old: Any, new: Any) -> Iterable[str]:
    return (old.metadata.namespace,) if new is None and old.metadata.name == DEFAULT else ()
