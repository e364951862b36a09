"""serviceaccounts/token: makes a token for an account, bound to a pod, secret or node if asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tiphys.api.authentication.v1.authentication_pb2 import TokenRequest
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_apimachinery.errors import BadRequest, Conflict, FieldError, Invalid
from tiphys_apimachinery.meta import to_time
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authentication.service_account_token import BoundReference, TokenClaims, TokenSigner
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.clock import Clock

DEFAULT_LIFETIME_S = 3600
MIN_LIFETIME_S = 600
MAX_LIFETIME_S = 1 << 32


@dataclass(frozen=True, slots=True)
class _Bound:
    """What the token will name besides the account."""

    pod: BoundReference | None = None
    node: BoundReference | None = None
    secret: BoundReference | None = None


class TokenRequests:
    """Signs tokens. max_lifetime_s cuts what callers ask for; 0 is no limit of its own."""

    def __init__(
        self,
        signer: TokenSigner,
        objects: ObjectAccess,
        clock: Clock,
        *,
        api_audiences: Sequence[str],
        new_uid: Callable[[], str],
        max_lifetime_s: int = 0,
    ) -> None:
        self._signer = signer
        self._objects = objects
        self._clock = clock
        self._api_audiences = tuple(api_audiences)
        self._new_uid = new_uid
        self._max_lifetime_s = max_lifetime_s

    async def create(self, user: UserInfo, obj: TokenRequest, *, namespace: str, name: str) -> TokenRequest:
        """The request with token and expiry in its status.

        Raises NotFound for a missing account or bound object, Invalid, BadRequest, and Conflict for a wrong uid.
        """
        account: Any = await self._objects.get(ServiceAccount, name, namespace)
        answer = TokenRequest()
        answer.CopyFrom(obj)
        if not answer.spec.audiences:
            answer.spec.audiences.extend(self._api_audiences)
        if not answer.spec.HasField("expirationSeconds"):
            answer.spec.expirationSeconds = DEFAULT_LIFETIME_S
        self._validate(answer)
        if self._max_lifetime_s and answer.spec.expirationSeconds > self._max_lifetime_s:
            answer.spec.expirationSeconds = self._max_lifetime_s
        bound = await self._bind(account, answer.spec) if answer.spec.HasField("boundObjectRef") else _Bound()
        now = self._clock.now().replace(microsecond=0)
        lifetime_s = answer.spec.expirationSeconds
        claims = TokenClaims(
            namespace,
            BoundReference(name, account.metadata.uid),
            tuple(answer.spec.audiences),
            now,
            lifetime_s,
            self._new_uid(),
            pod=bound.pod,
            node=bound.node,
            secret=bound.secret,
        )
        answer.metadata.name = name
        answer.metadata.namespace = namespace
        answer.metadata.creationTimestamp.CopyFrom(to_time(now))
        answer.status.token = self._signer.sign(claims)
        answer.status.expirationTimestamp.CopyFrom(to_time(now + timedelta(seconds=lifetime_s)))
        return answer

    def _validate(self, request: Any) -> None:
        errors = []
        seconds = request.spec.expirationSeconds
        path = "spec.expirationSeconds"
        if seconds < MIN_LIFETIME_S:
            errors.append(FieldError.invalid(path, seconds, "may not specify a duration less than 10 minutes"))
        if seconds > MAX_LIFETIME_S:
            errors.append(FieldError.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
        if errors:
            raise Invalid.of("TokenRequest", request.metadata.name, errors, group="authentication.k8s.io")

    async def _bind(self, account: Any, spec: Any) -> _Bound:
        reference = spec.boundObjectRef
        namespace = account.metadata.namespace
        kind = (reference.apiVersion, reference.kind)
        if kind == ("v1", "Pod"):
            pod: Any = await self._objects.get(Pod, reference.name, namespace)
            bound = _named(pod, reference, "pods")
            if pod.spec.serviceAccountName != account.metadata.name:
                raise BadRequest(
                    f'cannot bind token for serviceaccount "{account.metadata.name}" to pod running with'
                    " different serviceaccount name."
                )
            return _Bound(pod=bound, node=self._node_of(pod))
        if kind == ("v1", "Node"):
            node: Any = await self._objects.get(Node, reference.name)
            return _Bound(node=_named(node, reference, "nodes"))
        if kind == ("v1", "Secret"):
            secret: Any = await self._objects.get(Secret, reference.name, namespace)
            return _Bound(secret=_named(secret, reference, "secrets"))
        raise BadRequest(f"cannot bind token for apiVersion: {reference.apiVersion}, kind: {reference.kind}")

    def _node_of(self, pod: Any) -> BoundReference | None:
        name = pod.spec.nodeName
        if not name:
            return None
        node: Any = self._objects.get_nowait(Node, name)
        return BoundReference(name, node.metadata.uid if node is not None else "")


def _named(obj: Any, reference: Any, plural: str) -> BoundReference:
    if reference.uID and reference.uID != obj.metadata.uid:
        raise Conflict.of(
            plural,
            reference.name,
            why=f"the UID in the bound object reference ({reference.uID}) does not match the UID in record."
            " The object might have been deleted and then recreated",
        )
    return BoundReference(obj.metadata.name, obj.metadata.uid)
