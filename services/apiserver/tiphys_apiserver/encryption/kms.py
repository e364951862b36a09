"""A KMS plugin (kms.v2 over gRPC): it keeps the key that seals our key, which seals objects.

The plugin is asked once for each key of ours, not for each object: at the first write, when its own
key has changed, and when a value is read whose key is not known yet.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError

from tiphys.thirdparty.kms.v2 import api_pb2
from tiphys_apiserver.encryption.transformers import Undecryptable, seal, unseal
from tiphys_apiserver.storage.interface import StoreUnavailable
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.options import parse_duration
from tiphys_component.rpc import channel

_log = get_logger(__name__)

_KEY_BYTES = 32
# How often the plugin is asked whether its key has changed. Source: apiserver pkg/server/options/encryptionconfig.
_STATUS_EVERY_S = 60.0
_KNOWN_KEYS = 1000


@dataclass(frozen=True, slots=True)
class _Own:
    """A key of ours and what is stored of it beside each object."""

    cipher: AESGCM
    key_id: str
    sealed: bytes
    annotations: Mapping[str, bytes]


class KmsTransformer:
    """One plugin. Its methods raise StoreUnavailable where it does not answer: a later try may succeed."""

    def __init__(self, name: str, endpoint: str, timeout_s: float, clock: Clock) -> None:
        self.prefix = f"k8s:enc:kms:v2:{name}:".encode()
        self._name = name
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._clock = clock
        self._channel: grpc.aio.Channel | None = None
        self._own: _Own | None = None
        self._checked_at = 0.0
        self._known: OrderedDict[bytes, AESGCM] = OrderedDict()
        # One question at a time: those who wait for it use its answer.
        self._asking = asyncio.Lock()

    async def encrypt(self, data: bytes, context: bytes) -> bytes:
        """The object in the stored form. Raises StoreUnavailable."""
        own = await self._key_of_now()
        stored = api_pb2.EncryptedObject(
            encryptedData=seal(own.cipher, data, context), keyID=own.key_id, encryptedDEKSource=own.sealed
        )
        for name, value in own.annotations.items():
            stored.annotations[name] = value
        return stored.SerializeToString()

    async def decrypt(self, data: bytes, context: bytes) -> bytes:
        """The object. Raises Undecryptable, and StoreUnavailable."""
        stored = _read(data)
        if stored.encryptedDEKSourceType != api_pb2.AES_GCM_KEY:
            raise Undecryptable("it was sealed with a key made of a seed, which is not read here")
        cipher = self._known.get(stored.encryptedDEKSource)
        if cipher is None:
            cipher = await self._unseal_key(stored)
        return unseal(cipher, stored.encryptedData, context)

    def is_stale(self, data: bytes) -> bool:
        """Whether another key of the plugin's than that of now has sealed it."""
        return self._own is not None and _read(data).keyID != self._own.key_id

    async def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def _key_of_now(self) -> _Own:
        async with self._asking:
            now = self._clock.monotonic()
            own = self._own
            if own is not None and now - self._checked_at < _STATUS_EVERY_S:
                return own
            if own is not None and await self._is_current(own):
                self._checked_at = now
                return own
            own = self._own = await self._new_key()
            self._checked_at = now
            return own

    async def _is_current(self, own: _Own) -> bool:
        """Whether the plugin still seals with the same key; a plugin that does not answer has not changed it."""
        try:
            status: Any = await self._ask("Status", api_pb2.StatusRequest(), api_pb2.StatusResponse)
        except StoreUnavailable as err:
            _log.warning("KMS plugin does not answer", plugin=self._name, err=str(err))
            return True
        return bool(status.key_id == own.key_id)

    async def _new_key(self) -> _Own:
        key = os.urandom(_KEY_BYTES)
        request = api_pb2.EncryptRequest(plaintext=key, uid=str(uuid.uuid4()))
        answer: Any = await self._ask("Encrypt", request, api_pb2.EncryptResponse)
        if not answer.ciphertext or not answer.key_id or key in answer.ciphertext:
            raise StoreUnavailable(f"the KMS plugin {self._name} answers nonsense; see its log")
        _log.info("new key for objects", plugin=self._name, key_id=answer.key_id)
        own = _Own(AESGCM(key), answer.key_id, answer.ciphertext, dict(answer.annotations))
        self._remember(own.sealed, own.cipher)
        return own

    async def _unseal_key(self, stored: api_pb2.EncryptedObject) -> AESGCM:
        request = api_pb2.DecryptRequest(
            ciphertext=stored.encryptedDEKSource, uid=str(uuid.uuid4()), key_id=stored.keyID
        )
        for name, value in stored.annotations.items():
            request.annotations[name] = value
        async with self._asking:
            known = self._known.get(stored.encryptedDEKSource)
            if known is not None:
                return known
            answer: Any = await self._ask("Decrypt", request, api_pb2.DecryptResponse)
        try:
            cipher = AESGCM(answer.plaintext)
        except ValueError as err:
            raise Undecryptable("the KMS plugin answers with no key") from err
        self._remember(stored.encryptedDEKSource, cipher)
        return cipher

    def _remember(self, sealed: bytes, cipher: AESGCM) -> None:
        self._known[sealed] = cipher
        if len(self._known) > _KNOWN_KEYS:
            self._known.popitem(last=False)

    async def _ask(self, method: str, request: Any, answer: type[Any]) -> Any:
        if self._channel is None:
            self._channel = channel(self._endpoint)
        call = self._channel.unary_unary(
            f"/v2.KeyManagementService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return await call(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as err:
            raise StoreUnavailable(
                f"the KMS plugin {self._name} at {self._endpoint} does not answer {method}: {err.details()}"
            ) from err


def _read(data: bytes) -> api_pb2.EncryptedObject:
    try:
        return api_pb2.EncryptedObject.FromString(data)
    except DecodeError as err:
        raise Undecryptable("it is no stored object of a KMS plugin") from err


def make_kms(settings: Mapping[str, Any], clock: Clock) -> KmsTransformer:
    """The plugin of a configuration. Raises ValueError, which says what is wrong with it."""
    name, endpoint = str(settings.get("name") or ""), str(settings.get("endpoint") or "")
    if settings.get("apiVersion", "v1") != "v2":
        raise ValueError("kms: only apiVersion v2 is offered")
    if not name or ":" in name:
        raise ValueError("kms: its name is empty or holds ':'")
    if not endpoint.startswith("unix://"):
        raise ValueError(f"kms {name}: the endpoint {endpoint!r} does not begin with unix://")
    timeout_s = parse_duration(str(settings.get("timeout") or "3s"))
    if timeout_s <= 0:
        raise ValueError(f"kms {name}: the timeout must be above zero")
    return KmsTransformer(name, endpoint.replace("unix://", "unix:", 1), timeout_s, clock)
