"""Webhooks as the configurations describe them, and which writes each is asked about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.labels import Selector, from_label_selector
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation

ALL = "*"
FAIL = "Fail"
IF_NEEDED = "IfNeeded"
EXACT = "Exact"


@dataclass(frozen=True, slots=True)
class Rule:
    """Operations on resources, as RuleWithOperations writes them."""

    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]
    scope: str

    def matches(self, attributes: AdmissionAttributes, *, any_version: bool) -> bool:
        """Whether the write is one of them; with any_version the version of the object does not matter."""
        info = attributes.resource
        return (
            (ALL in self.operations or attributes.operation.value in self.operations)
            and (ALL in self.groups or info.group in self.groups)
            and (any_version or ALL in self.versions or info.version in self.versions)
            and (self.scope == ALL or self.scope == _scope(attributes))
            and any(_fits(pair, info.plural, attributes.subresource) for pair in self.resources)
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a webhook is: a URL, or a service with port and path. An empty ca_bundle (PEM) is the system's."""

    url: str
    service: tuple[str, str] | None
    port: int
    path: str
    ca_bundle: bytes


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook; configuration and name tell it in messages."""

    configuration: str
    name: str
    endpoint: Endpoint
    rules: tuple[Rule, ...]
    namespaces: Selector
    objects: Selector
    fails_closed: bool
    exact: bool
    has_side_effects: bool
    timeout_s: int
    again_if_needed: bool
    conditions: tuple[tuple[str, str], ...]

    def matches(self, attributes: AdmissionAttributes, namespace_labels: Mapping[str, str] | None) -> bool:
        """Whether it is asked about the write; namespace_labels is None for what is in no namespace."""
        if not any(rule.matches(attributes, any_version=not self.exact) for rule in self.rules):
            return False
        if namespace_labels is not None and not self.namespaces.matches(namespace_labels):
            return False
        return labels_match(self.objects, attributes)


def read_hooks(configurations: Iterable[Any]) -> tuple[Hook, ...]:
    """The webhooks of all configurations, in the order in which they are asked: by name of the configuration."""
    found: list[Hook] = []
    for configuration in sorted(configurations, key=lambda item: item.metadata.name):
        found += _read(configuration)
    return tuple(found)


def _read(configuration: Any) -> Iterator[Hook]:
    for hook in configuration.Webhooks:
        fields = hook.DESCRIPTOR.fields_by_name
        yield Hook(
            configuration=configuration.metadata.name,
            name=hook.name,
            endpoint=read_endpoint(hook.clientConfig),
            rules=tuple(read_rule(item) for item in hook.rules),
            namespaces=from_label_selector(hook.namespaceSelector),
            objects=from_label_selector(hook.objectSelector),
            fails_closed=hook.failurePolicy != "Ignore",
            exact=hook.matchPolicy == EXACT,
            has_side_effects=hook.sideEffects not in ("None", "NoneOnDryRun"),
            timeout_s=hook.timeoutSeconds or 10,
            again_if_needed="reinvocationPolicy" in fields and hook.reinvocationPolicy == IF_NEEDED,
            conditions=tuple((condition.name, condition.expression) for condition in hook.matchConditions),
        )


def read_endpoint(client: Any) -> Endpoint:
    """Where a WebhookClientConfig says that the webhook is."""
    service = client.service if client.HasField("service") else None
    return Endpoint(
        url=client.url,
        service=(service.namespace, service.name) if service is not None else None,
        port=service.port if service is not None and service.port else 443,
        path=service.path if service is not None else "",
        ca_bundle=client.caBundle,
    )


def endpoint_faults(client: Any, path: str) -> Iterator[FieldError]:
    """What is wrong with a WebhookClientConfig. Source: apiserver pkg/util/webhook/validation.go."""
    if client.HasField("url") == client.HasField("service"):
        yield FieldError.required(path, "exactly one of url or service is required")
    elif client.HasField("url"):
        yield from _url_faults(client.url, f"{path}.url")
    else:
        for name in ("namespace", "name"):
            if not getattr(client.service, name):
                yield FieldError.required(f"{path}.service.{name}")
        if client.service.HasField("port") and not 1 <= client.service.port <= 65535:
            why = "port is not valid: must be between 1 and 65535, inclusive"
            yield FieldError.invalid(f"{path}.service.port", client.service.port, why)


def _url_faults(url: str, path: str) -> Iterator[FieldError]:
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
    except ValueError as err:
        yield FieldError.required(path, f"url must be a valid URL: {err}{form}")
        return
    if parts.scheme != "https":
        yield FieldError.invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{form}")
    if not parts.netloc:
        yield FieldError.invalid(path, parts.netloc, f"host must be specified{form}")
    if "@" in parts.netloc:
        yield FieldError.invalid(path, parts.username, "user information is not permitted in the URL")
    if parts.fragment:
        yield FieldError.invalid(path, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        yield FieldError.invalid(path, parts.query, "query parameters are not permitted in the URL")


def read_rule(item: Any) -> Rule:
    """The rule in a RuleWithOperations."""
    pairs = []
    for resource in item.rule.resources:
        plural, _, subresource = resource.partition("/")
        pairs.append((plural, subresource))
    return Rule(
        frozenset(item.operations),
        frozenset(item.rule.apiGroups),
        frozenset(item.rule.apiVersions),
        tuple(pairs),
        item.rule.scope or ALL,
    )


def _fits(pair: tuple[str, str], plural: str, subresource: str) -> bool:
    """pods is the pods themselves, pods/log one subresource, pods/* both, * all but subresources, */* everything."""
    wanted, wanted_sub = pair
    if wanted not in (ALL, plural):
        return False
    return wanted_sub in (ALL, subresource)


def _scope(attributes: AdmissionAttributes) -> str:
    return "Namespaced" if attributes.resource.namespaced else "Cluster"


def labels_match(selector: Selector, attributes: AdmissionAttributes) -> bool:
    """Whether the object has the labels, before or after the write."""
    if not selector:
        return True
    objects: tuple[Any, ...] = (attributes.object, attributes.old_object)
    found = [obj.metadata.labels for obj in objects if obj is not None and "metadata" in obj.DESCRIPTOR.fields_by_name]
    return any(selector.matches(labels) for labels in found)


def is_exempt(attributes: AdmissionAttributes) -> bool:
    """Whether webhooks are never asked: about themselves, as nobody could mend a broken one, and about reviews."""
    info = attributes.resource
    if info.group == "admissionregistration.k8s.io":
        return True
    return info.group in ("authorization.k8s.io", "authentication.k8s.io") and attributes.operation is Operation.CREATE
