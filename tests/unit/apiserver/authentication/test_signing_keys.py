"""Keys of tokens, and the documents by which others verify them."""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tiphys_apiserver.authentication.signing_keys import (
    KeyFileError,
    discovery_document,
    jwks_document,
    load_signing_key,
    load_verifying_keys,
)

KEY = ec.generate_private_key(ec.SECP256R1())
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_file_may_hold_several_keys_of_both_sorts() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    text = PUBLIC + other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert [key.algorithm for key in load_verifying_keys(text)] == ["ES256", "ES384"]


def test_private_and_public_key_have_one_name() -> None:
    assert load_signing_key(PRIVATE).public.key_id == load_verifying_keys(PUBLIC)[0].key_id


@pytest.mark.parametrize("text", [b"", b"no key", PUBLIC[:60]])
def test_file_without_a_key_is_refused(text: bytes) -> None:
    with pytest.raises(KeyFileError):
        load_verifying_keys(text)


def test_H22_token_verifies_offline_by_the_published_keys() -> None:
    signing = load_signing_key(PRIVATE)
    keys = {signing.public.key_id: signing.public}
    token = jwt.encode({"sub": "x"}, KEY, algorithm="ES256", headers={"kid": signing.public.key_id})
    published = jwt.PyJWKSet.from_dict(jwks_document(keys))
    kid = jwt.get_unverified_header(token)["kid"]
    assert jwt.decode(token, published[kid].key, algorithms=["ES256"]) == {"sub": "x"}


def test_discovery_document_names_issuer_and_algorithms() -> None:
    signing = load_signing_key(PRIVATE)
    document = discovery_document("https://i", "https://i/keys", {"k": signing.public})
    assert document["issuer"] == "https://i"
    assert document["id_token_signing_alg_values_supported"] == ["ES256"]
