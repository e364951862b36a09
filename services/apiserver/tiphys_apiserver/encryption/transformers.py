"""Ways to turn objects into what may lie in the store, and back; byte for byte as kube-apiserver's.

A stored value begins with the way and the key's name, ``k8s:enc:aescbc:v1:key1:``, so that many keys
can be in use at once: the first of the configuration writes, all read.
Source: apiserver pkg/storage/value/encrypt.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

_BLOCK_BYTES = 16
_NONCE_BYTES = 12
ENCRYPTED = b"k8s:enc:"


class Undecryptable(Exception):
    """A value can't be read: its key is not known any more, or it was changed."""


class Transformer(Protocol):
    """One way with one key."""

    @property
    def prefix(self) -> bytes:
        """What its values begin with; empty for values that are as they are."""
        ...

    async def encrypt(self, data: bytes, context: bytes) -> bytes:
        """The value without prefix. context is the value's key in the store."""
        ...

    async def decrypt(self, data: bytes, context: bytes) -> bytes:
        """The data of a value without its prefix. Raises Undecryptable, and StoreUnavailable if a later try may do."""
        ...

    def is_stale(self, data: bytes) -> bool:
        """Whether a value without its prefix should be written anew, though it can be read."""
        ...

    async def close(self) -> None:
        """Free what is held."""
        ...


class _OfOneKey:
    """What local ways have in common."""

    def is_stale(self, data: bytes) -> bool:
        """No: one key writes all."""
        return False

    async def close(self) -> None:
        """Nothing is held."""


class Identity(_OfOneKey):
    """Leaves everything as it is; reads what was written before there was encryption."""

    prefix = b""

    async def encrypt(self, data: bytes, context: bytes) -> bytes:
        """The data."""
        return data

    async def decrypt(self, data: bytes, context: bytes) -> bytes:
        """The data. Raises Undecryptable for what another way has written."""
        if data.startswith(ENCRYPTED):
            raise Undecryptable("the key that it was encrypted with is not in the configuration")
        return data


class AesCbc(_OfOneKey):
    """AES-CBC with PKCS #7 padding. It does not notice changes; AES-GCM does."""

    def __init__(self, name: str, key: bytes) -> None:
        """Raises ValueError for a key that is not of 16, 24 or 32 bytes."""
        self._algorithm = AES(key)
        self.prefix = f"k8s:enc:aescbc:v1:{name}:".encode()

    async def encrypt(self, data: bytes, context: bytes) -> bytes:
        """A random vector, then the blocks."""
        padder = PKCS7(AES.block_size).padder()
        padded = padder.update(data) + padder.finalize()
        vector = os.urandom(_BLOCK_BYTES)
        encryptor = Cipher(self._algorithm, CBC(vector)).encryptor()
        return vector + encryptor.update(padded) + encryptor.finalize()

    async def decrypt(self, data: bytes, context: bytes) -> bytes:
        """The data. Raises Undecryptable."""
        if len(data) < 2 * _BLOCK_BYTES or len(data) % _BLOCK_BYTES:
            raise Undecryptable("the stored data is no whole number of blocks")
        decryptor = Cipher(self._algorithm, CBC(data[:_BLOCK_BYTES])).decryptor()
        padded = decryptor.update(data[_BLOCK_BYTES:]) + decryptor.finalize()
        unpadder = PKCS7(AES.block_size).unpadder()
        try:
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError as err:
            raise Undecryptable("the padding is wrong: another key, or damage") from err


class AesGcm(_OfOneKey):
    """AES-GCM with a random nonce, bound to the value's place in the store. Change the key before 2^32 writes."""

    def __init__(self, name: str, key: bytes) -> None:
        """Raises ValueError for a key that is not of 16, 24 or 32 bytes."""
        self._cipher = AESGCM(key)
        self.prefix = f"k8s:enc:aesgcm:v1:{name}:".encode()

    async def encrypt(self, data: bytes, context: bytes) -> bytes:
        """The nonce, then what GCM makes."""
        return seal(self._cipher, data, context)

    async def decrypt(self, data: bytes, context: bytes) -> bytes:
        """The data. Raises Undecryptable, also for a value that was moved from another key of the store."""
        return unseal(self._cipher, data, context)


def seal(cipher: AESGCM, data: bytes, context: bytes) -> bytes:
    """A random nonce and the sealed data."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, data, context)


def unseal(cipher: AESGCM, data: bytes, context: bytes) -> bytes:
    """What seal has sealed. Raises Undecryptable."""
    try:
        return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context)
    except (InvalidTag, ValueError) as err:
        raise Undecryptable("the seal is broken: another key, another place, or damage") from err


@dataclass(frozen=True, slots=True)
class Transformers:
    """All ways for some resources, in order: the first writes, the one whose prefix fits reads."""

    ways: Sequence[Transformer]

    async def encrypt(self, data: bytes, context: bytes) -> bytes:
        """The whole value."""
        first = self.ways[0]
        return first.prefix + await first.encrypt(data, context)

    async def decrypt(self, value: bytes, context: bytes) -> tuple[bytes, bool]:
        """The data, and whether it should be written anew as another way writes now. Raises Undecryptable."""
        for index, way in enumerate(self.ways):
            if value.startswith(way.prefix) and (way.prefix or not value.startswith(ENCRYPTED)):
                data = value[len(way.prefix) :]
                return await way.decrypt(data, context), index > 0 or way.is_stale(data)
        raise Undecryptable("no provider of the configuration reads it")
