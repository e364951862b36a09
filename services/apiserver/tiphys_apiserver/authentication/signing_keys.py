"""Keys that sign service account tokens, keys that verify them, and their public form for others."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

# Algorithm by the size of the curve.
_CURVES = {256: "ES256", 384: "ES384", 521: "ES512"}


class KeyFileError(ValueError):
    """The file holds no key that can sign or verify tokens."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, its name in token headers and its algorithm."""

    key_id: str
    algorithm: str
    key: PublicKey

    @classmethod
    def of(cls, key: PublicKey) -> VerifyingKey:
        """The key under the name that Kubernetes gives it: the digest of its DER form."""
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key_id = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
        return cls(key_id, algorithm_of(key), key)

    def to_jwk(self) -> dict[str, Any]:
        """The key as an entry of the JWKS document."""
        if isinstance(self.key, rsa.RSAPublicKey):
            members = RSAAlgorithm.to_jwk(self.key, as_dict=True)
        else:
            members = ECAlgorithm.to_jwk(self.key, as_dict=True)
        members.pop("key_ops", None)
        return {"use": "sig", **members, "kid": self.key_id, "alg": self.algorithm}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the public facts of it."""

    key: PrivateKey
    public: VerifyingKey


def algorithm_of(key: PublicKey) -> str:
    """RS256 or the ES… of the curve. Raises KeyFileError for other curves."""
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256"
    algorithm = _CURVES.get(key.curve.key_size)
    if algorithm is None:
        raise KeyFileError(f"no token algorithm for the curve {key.curve.name}")
    return algorithm


def load_signing_key(pem: bytes) -> SigningKey:
    """The private key of --service-account-signing-key-file. Raises KeyFileError."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as err:
        raise KeyFileError("no private key in PEM form") from err
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise KeyFileError("the key is neither RSA nor ECDSA")
    return SigningKey(key, VerifyingKey.of(key.public_key()))


def load_verifying_keys(pem: bytes) -> tuple[VerifyingKey, ...]:
    """All keys of --service-account-key-file, public or private. Raises KeyFileError where there is none."""
    blocks = [block + b"-----\n" for block in _pem_blocks(pem)]
    keys = []
    for block in blocks:
        if b"PRIVATE KEY" in block:
            keys.append(load_signing_key(block).public)
            continue
        try:
            key = load_pem_public_key(block)
        except ValueError as err:
            raise KeyFileError("not a public key in PEM form") from err
        if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
            raise KeyFileError("the key is neither RSA nor ECDSA")
        keys.append(VerifyingKey.of(key))
    if not keys:
        raise KeyFileError("no key in PEM form")
    return tuple(keys)


def _pem_blocks(pem: bytes) -> list[bytes]:
    blocks = []
    rest = pem
    while b"-----BEGIN " in rest:
        start = rest.index(b"-----BEGIN ")
        end = rest.find(b"-----END ", start)
        if end < 0:
            break
        close = rest.find(b"-----", end + len(b"-----END "))
        if close < 0:
            break
        blocks.append(rest[start:close])
        rest = rest[close + len(b"-----") :]
    return blocks


def jwks_document(keys: Mapping[str, VerifyingKey]) -> dict[str, Any]:
    """The body of /openid/v1/jwks."""
    return {"keys": [key.to_jwk() for key in keys.values()]}


def discovery_document(issuer: str, jwks_uri: str, keys: Mapping[str, VerifyingKey]) -> dict[str, Any]:
    """The body of /.well-known/openid-configuration."""
    return {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted({key.algorithm for key in keys.values()}),
    }
