"""Gives each aggregated ClusterRole the rules of the roles that its selectors choose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.rbac.v1 import rbac_pb2
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.controllers.cluster_role_aggregation.plan import is_aggregated, rules_for
from tiphys_controller_manager.frame import Context, Watch

ClusterRole = rbac_pb2.ClusterRole
_LAG_S: Final = 1.0


class ClusterRoleAggregationController:
    """Keys are names of aggregated ClusterRoles."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._roles = context.informers.of(ClusterRole)
        self._writes = context.expectations(ClusterRole)

    def watches(self) -> Iterable[Watch]:
        """ClusterRoles: a change of one may matter to every aggregated one, and through it to the next."""
        return (Watch(ClusterRole, self._role_keys),)

    def first_keys(self) -> Iterable[str]:
        """None: every role is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring one role's rules up to date. Raises errors of the API."""
        role = self._roles.get(key)
        if role is None or is_being_deleted(role) or not is_aggregated(role):
            self._writes.forget(key)
            return None
        if not self._writes.are_met(key):
            return RequeueAfter(_LAG_S)
        rules = rules_for(role, self._roles.store.list())
        if rules == list(role.rules):
            return None
        # Of this version, and nothing but the rules: what users write beside them stays theirs.
        metadata = {"uid": role.metadata.uid, "resourceVersion": role.metadata.resourceVersion}
        patch = {"metadata": metadata, "rules": [to_json(rule) for rule in rules] or None}
        try:
            self._writes.wrote(key, await self._client.patch(ClusterRole, key, "", patch))
        except NotFound:
            self._writes.forget(key)
        return None

    def _role_keys(self, old: Any, new: Any) -> Iterable[str]:
        if old is not None and new is not None and _facts(old) == _facts(new):
            return ()
        return [role.metadata.name for role in self._roles.store.list() if is_aggregated(role)]


def _facts(role: Any) -> tuple[Any, ...]:
    return dict(role.metadata.labels), list(role.rules), role.aggregationRule
