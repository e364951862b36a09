"""The file of --encryption-provider-config: apiserver.config.k8s.io/v1 EncryptionConfiguration."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys_apimachinery.codec import yaml_codec
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.scheme import Scheme
from tiphys_apiserver.encryption.transformers import AesCbc, AesGcm, Identity, Transformer, Transformers

_KINDS = ("EncryptionConfiguration", "EncryptionConfig")
_AES_KEY_BYTES = (16, 24, 32)


class ConfigurationError(ValueError):
    """The file can't be used; the message names the place, never a key."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Resources as the file names them (secrets, deployments.apps, *.apps, *.*), and what is done with them."""

    resources: tuple[str, ...]
    transformers: Transformers

    def covers(self, group: str, plural: str) -> bool:
        """Whether the rule names the resource, or all of its group, or all there are."""
        return bool({f"{plural}.{group}".rstrip("."), f"*.{group}", "*.*"} & set(self.resources))


# Makes a KMS provider of its settings.
MakeKms = Callable[[Mapping[str, Any]], Transformer]


class Configuration:
    """Who encrypts what; where several rules name a resource, the first counts."""

    def __init__(self, rules: tuple[Rule, ...], scheme: Scheme) -> None:
        self.rules = rules
        table: dict[str, Transformers] = {}
        for info in scheme.resources():
            prefix = f"{info.storage_key_prefix.rstrip('/')}/"
            for rule in rules:
                if rule.covers(info.group, info.plural):
                    table.setdefault(prefix, rule.transformers)
                    break
        # Longer prefixes first: that of services is the start of that of their specs.
        self._table = sorted(table.items(), key=lambda item: len(item[0]), reverse=True)
        self._others = next((rule.transformers for rule in rules if "*.*" in rule.resources), None)
        known = {f"{info.storage_key_prefix.rstrip('/')}/" for info in scheme.resources()}
        self._plain = tuple(known - set(table))

    def of(self, key: str) -> Transformers | None:
        """What is done with the value of a key; None where nothing is."""
        for prefix, transformers in self._table:
            if key.startswith(prefix):
                return transformers
        return self._of_custom(key) if self._custom_rules() else None

    def _custom_rules(self) -> bool:
        return self._others is not None or any("." in name for rule in self.rules for name in rule.resources)

    def _of_custom(self, key: str) -> Transformers | None:
        """What is done with custom resources, whose keys are /registry/GROUP/PLURAL/..."""
        if key.startswith(self._plain):
            return None
        parts = key.split("/")
        if len(parts) < 5:
            return None
        for rule in self.rules:
            if rule.covers(parts[2], parts[3]):
                return rule.transformers
        return None

    async def close(self) -> None:
        """Free what the providers hold."""
        for rule in self.rules:
            for way in rule.transformers.ways:
                await way.close()

    def prefixes(self) -> list[str]:
        """Where encrypted values of built-in kinds lie."""
        return [prefix for prefix, _ in self._table]


def read_configuration(data: bytes, scheme: Scheme, make_kms: MakeKms) -> Configuration:
    """The configuration in a YAML or JSON file. Raises ConfigurationError."""
    try:
        document = yaml_codec.parse(data)
    except BadRequest as err:
        raise ConfigurationError(err.message) from err
    if not isinstance(document, dict):
        raise ConfigurationError("it is empty")
    if document.get("kind") not in _KINDS or not str(document.get("apiVersion")).endswith("v1"):
        raise ConfigurationError("it is no apiserver.config.k8s.io/v1 EncryptionConfiguration")
    rules = document.get("resources")
    if not isinstance(rules, list) or not rules:
        raise ConfigurationError("it has no resources")
    return Configuration(tuple(_rule(item, f"resources[{at}]", make_kms) for at, item in enumerate(rules)), scheme)


def _rule(document: Any, where: str, make_kms: MakeKms) -> Rule:
    names = document.get("resources") if isinstance(document, dict) else None
    providers = document.get("providers") if isinstance(document, dict) else None
    if not isinstance(names, list) or not names or not isinstance(providers, list) or not providers:
        raise ConfigurationError(f"{where}: it needs resources and providers")
    resources = tuple(name if name != "*." else "*." for name in map(str, names))
    if "*" in resources:
        raise ConfigurationError(f"{where}.resources: use '*.*' for all resources, '*.' for those of the core group")
    ways: list[Transformer] = []
    for index, provider in enumerate(providers):
        ways += _ways(provider, f"{where}.providers[{index}]", make_kms)
    prefixes = [way.prefix for way in ways]
    if len(set(prefixes)) != len(prefixes):
        raise ConfigurationError(f"{where}.providers: a provider has the name of another")
    return Rule(resources, Transformers(tuple(ways)))


def _ways(provider: Any, where: str, make_kms: MakeKms) -> list[Transformer]:
    if not isinstance(provider, dict) or len(provider) != 1:
        raise ConfigurationError(f"{where}: it must name one provider")
    [(kind, settings)] = provider.items()
    settings = settings or {}
    if kind == "identity":
        return [Identity()]
    if kind == "aescbc":
        return [AesCbc(name, key) for name, key in _keys(settings, where)]
    if kind == "aesgcm":
        return [AesGcm(name, key) for name, key in _keys(settings, where)]
    if kind == "kms":
        try:
            return [make_kms(settings)]
        except ValueError as err:
            raise ConfigurationError(f"{where}: {err}") from err
    if kind == "secretbox":
        # Its library is loaded for those who ask for it.
        from tiphys_apiserver.encryption.secretbox import Secretbox

        return [Secretbox(name, key) for name, key in _keys(settings, where, sizes=(32,))]
    raise ConfigurationError(f"{where}: {kind!r} is not of identity, aescbc, aesgcm, secretbox, kms")


def _keys(settings: Mapping[str, Any], where: str, *, sizes: Sequence[int] = _AES_KEY_BYTES) -> list[tuple[str, bytes]]:
    found = []
    for index, item in enumerate(settings.get("keys") or ()):
        place = f"{where}.keys[{index}]"
        name = str(item.get("name") or "")
        if not name or ":" in name:
            raise ConfigurationError(f"{place}.name: it is empty or holds ':'")
        try:
            key = base64.b64decode(str(item.get("secret") or ""), validate=True)
        except binascii.Error as err:
            raise ConfigurationError(f"{place}.secret: it is no base64") from err
        if len(key) not in sizes:
            wanted = " or ".join(map(str, sizes))
            raise ConfigurationError(f"{place}.secret: the key has {len(key)} bytes and must have {wanted}")
        found.append((name, key))
    if not found:
        raise ConfigurationError(f"{where}: it has no keys")
    return found
