"""XSalsa20 and Poly1305, by libsodium; byte for byte as kube-apiserver's secretbox.

Source: apiserver pkg/storage/value/encrypt/secretbox.
"""

from __future__ import annotations

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from tiphys_apiserver.encryption.transformers import Undecryptable


class Secretbox:
    """A random nonce and the box. Unlike AES-GCM it is not bound to the value's place in the store."""

    def __init__(self, name: str, key: bytes) -> None:
        """Raises ValueError for a key that is not of 32 bytes."""
        self._box = SecretBox(key)
        self.prefix = f"k8s:enc:secretbox:v1:{name}:".encode()

    async def encrypt(self, data: bytes, context: bytes) -> bytes:
        """The nonce of 24 bytes, then the box."""
        return bytes(self._box.encrypt(data))

    async def decrypt(self, data: bytes, context: bytes) -> bytes:
        """The data. Raises Undecryptable."""
        try:
            return self._box.decrypt(data)
        except (CryptoError, ValueError) as err:
            raise Undecryptable("the box does not open: another key, or damage") from err

    def is_stale(self, data: bytes) -> bool:
        """No: one key writes all."""
        return False

    async def close(self) -> None:
        """Nothing is held."""
