"""Encryption: what the configuration covers, what it may not say, and what each way promises."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml

from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.encryption.configuration import Configuration, ConfigurationError, read_configuration
from tiphys_apiserver.encryption.secretbox import Secretbox
from tiphys_apiserver.encryption.transformers import AesCbc, AesGcm, Identity, Transformer, Transformers, Undecryptable

_KEY = base64.b64encode(b"k" * 32).decode()
_AES = {"aescbc": {"keys": [{"name": "key1", "secret": _KEY}]}}


def _no_kms(settings: Any) -> Any:
    raise ConfigurationError("no kms")


def _read(*rules: dict[str, Any]) -> Configuration:
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": list(rules),
    }
    return read_configuration(yaml.safe_dump(document).encode(), load_default(), _no_kms)


@pytest.mark.parametrize(
    ("resources", "key", "covered"),
    [
        pytest.param(["secrets"], "/registry/secrets/x/a", True, id="core"),
        pytest.param(["secrets"], "/registry/configmaps/x/a", False, id="another"),
        pytest.param(["deployments.apps"], "/registry/deployments/x/a", True, id="of a group"),
        pytest.param(["*.apps"], "/registry/statefulsets/x/a", True, id="a whole group"),
        pytest.param(["*.apps"], "/registry/secrets/x/a", False, id="not of the group"),
        pytest.param(["*."], "/registry/configmaps/x/a", True, id="the core group"),
        pytest.param(["services"], "/registry/services/specs/x/a", True, id="services lie deeper"),
        pytest.param(["services"], "/registry/services/endpoints/x/a", False, id="endpoints beside them"),
        pytest.param(["widgets.acme.com"], "/registry/acme.com/widgets/x/a", True, id="custom"),
        pytest.param(["*.*"], "/registry/acme.com/widgets/x/a", True, id="everything, custom too"),
        pytest.param(["*.*"], "/registry/pods/x/a", True, id="everything"),
    ],
)
def test_resources_are_found_by_their_keys(resources: list[str], key: str, covered: bool) -> None:
    found = _read({"resources": resources, "providers": [_AES]}).of(key)

    assert (found is not None) is covered


def test_first_rule_that_names_a_resource_counts() -> None:
    found = _read(
        {"resources": ["secrets"], "providers": [{"identity": {}}]}, {"resources": ["*.*"], "providers": [_AES]}
    )

    secrets, pods = found.of("/registry/secrets/x/a"), found.of("/registry/pods/x/a")
    assert secrets is not None
    assert pods is not None
    assert (secrets.ways[0].prefix, pods.ways[0].prefix) == (b"", b"k8s:enc:aescbc:v1:key1:")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        pytest.param({"resources": ["secrets"]}, "needs resources and providers", id="no providers"),
        pytest.param({"resources": ["*"], "providers": [_AES]}, "use '\\*\\.\\*'", id="bare star"),
        pytest.param({"resources": ["secrets"], "providers": [{"rot13": {}}]}, "'rot13' is not of", id="unknown"),
        pytest.param(
            {"resources": ["secrets"], "providers": [{"secretbox": {"keys": [{"name": "k", "secret": "YQ=="}]}}]},
            "has 1 bytes and must have 32",
            id="short key of a secretbox",
        ),
        pytest.param({"resources": ["secrets"], "providers": [{"aescbc": {}}]}, "has no keys", id="no keys"),
        pytest.param({"resources": ["secrets"], "providers": [_AES, _AES]}, "name of another", id="name twice"),
        pytest.param(
            {"resources": ["secrets"], "providers": [{"aesgcm": {"keys": [{"name": "k", "secret": "YQ=="}]}}]},
            "has 1 bytes",
            id="short key",
        ),
        pytest.param(
            {"resources": ["secrets"], "providers": [{"aesgcm": {"keys": [{"name": "k", "secret": "?"}]}}]},
            "no base64",
            id="no base64",
        ),
    ],
)
def test_configuration_that_cannot_be_used_is_refused_with_the_reason(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        _read(rule)
    assert _KEY not in str(caught.value)


_WAYS: list[Transformer] = [AesCbc("one", b"a" * 32), AesGcm("one", b"a" * 32), AesCbc("two", b"b" * 16), Identity()]


@pytest.mark.parametrize(
    "way", [*_WAYS, Secretbox("one", b"a" * 32)], ids=["aescbc", "aesgcm", "short key", "identity", "secretbox"]
)
async def test_H17_what_is_encrypted_comes_back(way: Any) -> None:
    for data in (b"", b"x", b"k8s\x00" + b"secret" * 100):
        value = await way.encrypt(data, b"/registry/secrets/x/a")
        assert await way.decrypt(value, b"/registry/secrets/x/a") == data
    assert await way.encrypt(b"x", b"") != await way.encrypt(b"x", b"") or way.prefix == b""


async def test_sealed_value_is_good_in_its_own_place_only() -> None:
    way = AesGcm("one", b"a" * 32)
    value = await way.encrypt(b"secret", b"/registry/secrets/x/a")

    with pytest.raises(Undecryptable):
        await way.decrypt(value, b"/registry/secrets/x/b")
    with pytest.raises(Undecryptable):
        await way.decrypt(value[:-1] + bytes([value[-1] ^ 1]), b"/registry/secrets/x/a")
    with pytest.raises(Undecryptable):
        await way.decrypt(b"", b"/registry/secrets/x/a")


# The example of "Cryptography in NaCl": key, nonce and box as they lie in the store, and how the text begins.
_BOX_KEY = "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"
_BOX = (
    "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37"
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
    "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
    "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
)
_BOX_BEGINS = "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffc"


async def test_H17_a_box_that_others_closed_opens_and_a_changed_one_does_not() -> None:
    way = Secretbox("one", bytes.fromhex(_BOX_KEY))
    assert way.prefix == b"k8s:enc:secretbox:v1:one:"
    assert (await way.decrypt(bytes.fromhex(_BOX), b"")).hex().startswith(_BOX_BEGINS)
    for broken in (bytes.fromhex(_BOX)[:-1] + b"\x00", bytes.fromhex(_BOX)[:30], b""):
        with pytest.raises(Undecryptable):
            await way.decrypt(broken, b"")


async def test_first_way_writes_all_read_and_the_others_values_are_stale() -> None:
    old, new = Transformers((_WAYS[0],)), Transformers((_WAYS[1], _WAYS[0], _WAYS[3]))
    of_old = await old.encrypt(b"x", b"k")

    assert (await new.encrypt(b"x", b"k")).startswith(b"k8s:enc:aesgcm:v1:one:")
    assert await new.decrypt(of_old, b"k") == (b"x", True)
    assert await new.decrypt(b"plain", b"k") == (b"plain", True)
    assert await new.decrypt(await new.encrypt(b"x", b"k"), b"k") == (b"x", False)
    with pytest.raises(Undecryptable):
        await new.decrypt(b"k8s:enc:aescbc:v1:gone:data", b"k")
