"""Puts the parts of a server together. What depends on what is here and only here."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from tiphys_apimachinery.scheme import ResourceInfo, Scheme, load_default
from tiphys_apiserver.admission.answered import AdmittedAnswerer
from tiphys_apiserver.admission.chain import build_chain
from tiphys_apiserver.admission.interface import Admission
from tiphys_apiserver.admission.webhooks.caller import WebhookCaller
from tiphys_apiserver.admission.webhooks.services import ServiceAddresses
from tiphys_apiserver.aggregation.aggregator import Aggregator
from tiphys_apiserver.aggregation.client import ClientFiles
from tiphys_apiserver.aggregation.published import publish_authentication, publish_local
from tiphys_apiserver.audit.auditor import Auditor
from tiphys_apiserver.audit.build import build_auditor
from tiphys_apiserver.authentication.anonymous import AnonymousFallback
from tiphys_apiserver.authentication.interface import SERVER_USER, Credentials, UserInfo
from tiphys_apiserver.authentication.review_client import ReviewClient
from tiphys_apiserver.authentication.reviews import SelfSubjectReviews, TokenReviews
from tiphys_apiserver.authentication.signing_keys import discovery_document, jwks_document
from tiphys_apiserver.authentication.token_request import TokenRequests
from tiphys_apiserver.authorization.reviews import (
    SelfSubjectAccessReviews,
    SelfSubjectRulesReviews,
    SubjectAccessReviews,
)
from tiphys_apiserver.authorization.union import AlwaysAllow
from tiphys_apiserver.bootstrap.kubernetes_service import AdvertisedAddress, KubernetesService
from tiphys_apiserver.bootstrap.run import bootstrap
from tiphys_apiserver.crd.registrar import Registrar
from tiphys_apiserver.crd.served import CustomKinds, Kinds
from tiphys_apiserver.endpoints.component_statuses import ComponentStatuses
from tiphys_apiserver.endpoints.hall import Answerer, Hall
from tiphys_apiserver.endpoints.reader import Reader
from tiphys_apiserver.metrics_api.kubelets import Kubelets
from tiphys_apiserver.metrics_api.readers import readers as metrics_readers
from tiphys_apiserver.openapi.service import OpenAPIService
from tiphys_apiserver.options import Options
from tiphys_apiserver.registry.access import RegistryAccess
from tiphys_apiserver.registry.strategy import Environment
from tiphys_apiserver.registry.table import ResourceTable
from tiphys_apiserver.rest.discovery_paths import Catalog, add_discovery_paths, add_issuer_paths, add_openapi_paths
from tiphys_apiserver.rest.kubelet import KubeletDocuments, KubeletProxy
from tiphys_apiserver.rest.plain_paths import PlainPaths, add_basic_paths, add_debug_pages
from tiphys_apiserver.rest.render import Renderer
from tiphys_apiserver.rest.resources import Resources
from tiphys_apiserver.rest.server import RestServer
from tiphys_apiserver.rest.subresources import Subresources
from tiphys_apiserver.rest.swagger_page import add_swagger_page
from tiphys_apiserver.rest.version import GIT_VERSION
from tiphys_apiserver.server.chain import Chain
from tiphys_apiserver.server.egress import Egress
from tiphys_apiserver.server.flow_control.interface import FlowControl
from tiphys_apiserver.server.flow_control.metrics import FlowMetrics
from tiphys_apiserver.server.flow_control.priority_and_fairness import PriorityAndFairness
from tiphys_apiserver.server.max_in_flight import MaxInFlight
from tiphys_apiserver.server.request_info import RequestInfo
from tiphys_apiserver.server.request_metrics import RequestMetrics
from tiphys_apiserver.server.security import Authentication, Authorization, build_authentication, build_authorization
from tiphys_apiserver.storage.interface import Store
from tiphys_apiserver.storage.storage_metrics import collect_storage
from tiphys_component.clock import Clock
from tiphys_component.health import Health
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_component.zpages import ZPages

_NAME = "kube-apiserver"
_USEFUL_PATHS = {name: f"/{name}" for name in ("healthz", "livez", "metrics", "readyz", "version")}


@dataclass(slots=True)
class Assembly:
    """The parts of one server, ready to be started. plain is the door without checks, closed by default."""

    scheme: Scheme
    objects: RegistryAccess
    table: ResourceTable
    hall: Hall
    chain: Chain
    kubelets: KubeletProxy
    resources: Resources
    paths: PlainPaths
    rest: RestServer
    plain: RestServer
    metrics: RequestMetrics
    webhooks: WebhookCaller
    aggregator: Aggregator
    auditor: Auditor | None
    definitions: Registrar
    clients: tuple[ReviewClient, ...]
    clock: Clock
    options: Options
    advertise: Callable[[int], KubernetesService | None]
    kubernetes_service: KubernetesService | None = None
    rpc: Any = None

    async def bootstrap(self, secure_port: int) -> None:
        """Make what a cluster must have, once the caches are filled."""
        self.kubernetes_service = self.advertise(secure_port)
        await bootstrap(self.objects, self.kubernetes_service)
        await publish_authentication(self.objects, self.options)
        served = (info for info in self.scheme.resources() if is_served(info, self.hall))
        await publish_local(self.objects, [(info.group, info.version) for info in served])


class _ServerItself:
    """The authenticator of the port without checks: everybody is the server."""

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        return SERVER_USER


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What a server is built on: given from outside, so that tests and simulations can give their own."""

    options: Options
    store: Store
    clock: Clock
    health: Health
    metrics: Registry
    # What is shown to kubelets; None speaks plain HTTP to them.
    kubelet_tls: ssl.SSLContext | None
    new_uid: Callable[[], str]
    rng: Random


def assemble(base: Foundation) -> Assembly:
    """Build the parts. Raises StartupError where a file that the options name can't be used."""
    options, clock = base.options, base.clock
    scheme = load_default()
    objects = RegistryAccess(clock)
    environment = _environment(base, objects)
    table = ResourceTable(scheme, base.store, environment)
    objects.attach(table)
    authentication = build_authentication(options, objects, clock, base.metrics)
    authorization = build_authorization(options, objects, clock)
    egress, resolve = Egress(options.egress_proxies()), ServiceAddresses(objects).resolve
    webhooks = WebhookCaller(resolve, egress)
    admission = _admission(base, objects, authorization, webhooks)
    answerers = _admit_tokens(_answerers(base, objects, authentication, authorization), scheme, admission)
    readers = _readers(base, scheme, objects, table)
    hall = Hall(table, admission, clock, answerers, readers=readers, authorizer=authorization.authorizer)
    flow = _flow_control(base, objects, table)
    auditor = build_auditor(options, scheme, clock, metrics=base.metrics, new_uid=base.new_uid)
    counted = _request_metrics(base, table, {*answerers, *readers})
    chain_of = partial(Chain, flow=flow, auditor=auditor, metrics=counted, clock=clock)
    chain = chain_of(authentication.authenticator, authorization.authorizer)
    kubelets = KubeletProxy(hall, objects, base.kubelet_tls, egress=egress)
    subresources = Subresources(hall, scheme, objects, kubelets)
    aggregator = Aggregator(
        objects, resolve, egress=egress, files=_client_files(options), clock=clock, metrics=base.metrics
    )
    resources = Resources(hall, Renderer(clock), subresources, base.rng.random, elsewhere=aggregator.serve)
    paths = PlainPaths(aggregator.document)
    _add_documents(paths, base, scheme, hall)
    _add_issuer(paths, options, authentication)
    rest_server = partial(
        RestServer,
        resources=resources,
        paths=paths,
        metrics=counted,
        clock=clock,
        request_timeout_s=options.request_timeout_s,
    )
    return Assembly(
        scheme=scheme,
        objects=objects,
        table=table,
        hall=hall,
        chain=chain,
        kubelets=kubelets,
        resources=resources,
        paths=paths,
        rest=rest_server(chain),
        plain=rest_server(chain_of(_ServerItself(), AlwaysAllow())),
        metrics=counted,
        webhooks=webhooks,
        aggregator=aggregator,
        auditor=auditor,
        definitions=Registrar(table, Kinds(base.store, environment, webhooks), objects, clock),
        clients=(*authentication.clients, *authorization.clients),
        clock=clock,
        options=options,
        advertise=lambda port: _kubernetes_service(options, objects, clock, port),
    )


def _admission(
    base: Foundation, objects: RegistryAccess, authorization: Authorization, webhooks: WebhookCaller
) -> Admission:
    return build_chain(
        objects,
        clock=base.clock,
        rng=base.rng,
        escalation=authorization.escalation,
        authorizer=authorization.authorizer,
        webhooks=webhooks,
        new_uid=base.new_uid,
        disabled=frozenset(base.options.disable_admission_plugins),
    )


def _environment(base: Foundation, objects: RegistryAccess) -> Environment:
    options = base.options
    return Environment(
        base.clock,
        base.new_uid,
        base.rng,
        objects,
        options.service_cluster_ip_range,
        options.node_port_range(),
        base.store if options.store == "etcd" else None,
    )


def _client_files(options: Options) -> ClientFiles:
    return ClientFiles(options.proxy_client_cert_file, options.proxy_client_key_file)


def _admit_tokens(
    answerers: dict[tuple[str, str, str], Answerer], scheme: Scheme, admission: Admission
) -> dict[tuple[str, str, str], Answerer]:
    """The same answerers; admission sees requests for tokens first."""
    tokens = answerers.get(("", "v1", "serviceaccounts/token"))
    accounts = scheme.by_resource("", "v1", "serviceaccounts")
    if tokens is not None and accounts is not None:
        answerers["", "v1", "serviceaccounts/token"] = AdmittedAnswerer(tokens, admission, accounts, "token")
    return answerers


def _flow_control(base: Foundation, objects: RegistryAccess, table: ResourceTable) -> FlowControl:
    options = base.options
    reading, mutating = options.max_requests_inflight, options.max_mutating_requests_inflight
    if not options.enable_priority_and_fairness or not (reading and mutating):
        return MaxInFlight(reading, mutating)
    metrics = FlowMetrics(base.metrics)
    return PriorityAndFairness(reading + mutating, objects, base.clock, count=table.count, metrics=metrics)


def _add_documents(paths: PlainPaths, base: Foundation, scheme: Scheme, hall: Hall) -> None:
    """Health, discovery and OpenAPI."""
    options, table = base.options, hall.table
    add_basic_paths(paths, base.health, base.metrics)
    add_debug_pages(paths, ZPages(_NAME, options, clock=base.clock, paths=_USEFUL_PATHS))
    add_swagger_page(paths)
    fixed = [info for info in scheme.resources() if is_served(info, hall)]
    catalog = Catalog(fixed, lambda: [served.info for served in table.custom()], lambda: table.generation)
    add_discovery_paths(paths, catalog, f"{options.advertise_address or options.bind_address[0]}:{options.secure_port}")
    add_openapi_paths(paths, OpenAPIService(scheme, release=GIT_VERSION, custom=CustomKinds(table)))


def _request_metrics(base: Foundation, table: ResourceTable, answered: set[tuple[str, str, str]]) -> RequestMetrics:
    base.metrics.collector(collect_storage(table.caches))
    return RequestMetrics(base.metrics, lambda info: table.knows(info) or _is_answered(answered, info))


def _is_answered(answered: set[tuple[str, str, str]], info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    return (info.api_group, info.api_version, resource) in answered


def _component_status_info(scheme: Scheme) -> ResourceInfo:
    found = scheme.by_resource("", "v1", "componentstatuses")
    if found is None:
        raise LookupError("the contracts have no componentstatuses")
    return found


def _readers(
    base: Foundation, scheme: Scheme, objects: RegistryAccess, table: ResourceTable
) -> dict[tuple[str, str, str], Reader]:
    statuses = ComponentStatuses(_component_status_info(scheme), objects, base.clock, base.store.revision)
    kubelets = Kubelets(KubeletDocuments(objects, base.kubelet_tls).read, base.clock)
    made: tuple[Reader, ...] = (statuses, *metrics_readers(scheme, table, kubelets, base.clock))
    return {(reader.info.group, reader.info.version, reader.info.plural): reader for reader in made}


def is_served(info: ResourceInfo, hall: Hall) -> bool:
    """Whether a request for the resource finds anything: it is stored, or answered."""
    place = (info.group, info.version, info.plural)
    if hall.table.find(*place) is not None or place in hall.answerers or place in hall.readers:
        return True
    return place == ("", "v1", "bindings")


def _answerers(
    base: Foundation, objects: RegistryAccess, authentication: Authentication, authorization: Authorization
) -> dict[tuple[str, str, str], Answerer]:
    authn, authz = "authentication.k8s.io", "authorization.k8s.io"
    authenticator = authentication.authenticator
    if isinstance(authenticator, AnonymousFallback):
        authenticator = authenticator.inner
    access = SubjectAccessReviews(authorization.authorizer)
    answerers: dict[tuple[str, str, str], Answerer] = {
        (authn, "v1", "tokenreviews"): TokenReviews(authenticator, base.options.audiences()),
        (authn, "v1", "selfsubjectreviews"): SelfSubjectReviews(base.clock),
        (authz, "v1", "subjectaccessreviews"): access,
        (authz, "v1", "localsubjectaccessreviews"): access,
        (authz, "v1", "selfsubjectaccessreviews"): SelfSubjectAccessReviews(authorization.authorizer),
        (authz, "v1", "selfsubjectrulesreviews"): SelfSubjectRulesReviews(authorization.rules),
    }
    if authentication.signer is not None:
        answerers["", "v1", "serviceaccounts/token"] = TokenRequests(
            authentication.signer,
            objects,
            base.clock,
            api_audiences=base.options.audiences(),
            new_uid=base.new_uid,
        )
    return answerers


def _add_issuer(paths: PlainPaths, options: Options, authentication: Authentication) -> None:
    if not authentication.keys:
        return
    issuer = options.service_account_issuer[0]
    document = discovery_document(issuer, f"{issuer}/openid/v1/jwks", authentication.keys)
    add_issuer_paths(paths, document, jwks_document(authentication.keys))


def _kubernetes_service(options: Options, objects: RegistryAccess, clock: Clock, port: int) -> KubernetesService | None:
    if not options.advertise_address:
        return None
    advertised = AdvertisedAddress(options.advertise_address, port, options.service_cluster_ip_range)
    return KubernetesService(objects, clock, advertised, get_logger("kubernetes_service"))
