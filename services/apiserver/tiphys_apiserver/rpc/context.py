"""A gRPC call's caller and subject, in the server's own words."""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Any, Protocol

from multidict import CIMultiDict

from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.authentication.interface import Credentials
from tiphys_apiserver.authorization.impersonation import read_headers
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.request_info import RequestInfo


class _HasInfo(Protocol):
    """What stands for a resource: one that is stored, or one that is only read."""

    @property
    def info(self) -> ResourceInfo: ...


@lru_cache(maxsize=1024)
def _der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))


def credentials_of(context: Any) -> Credentials:
    """The client certificate that TLS has verified, and the bearer token in the metadata."""
    found: list[bytes] = context.auth_context().get("x509_pem_cert") or []
    token = ""
    remote: CIMultiDict[str] | None = None
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            token = value[7:].strip()
        elif name.startswith("x-remote-") and isinstance(value, str):
            remote = remote if remote is not None else CIMultiDict()
            remote.add(name, value)
    return Credentials(token, _der(found[0]) if found else b"", context.peer(), remote or {})


def make_call(
    context: Any, served: _HasInfo, verb: str, *, namespace: str = "", name: str = "", subresource: str = ""
) -> Call:
    """The call of a method of a resource's service. Raises BadRequest for names that could not stand in a path."""
    info = served.info
    if "/" in namespace or "/" in name:
        raise BadRequest(f"invalid namespace or name {namespace!r}, {name!r}: may not contain '/'")
    if not info.namespaced:
        # A namespace is its own namespace, as in its path over REST.
        namespace = name if info.plural == "namespaces" and not info.group else ""
    request = RequestInfo("", verb, True, info.group, info.version, namespace, info.plural, subresource, name)
    headers = [pair for pair in context.invocation_metadata() or () if pair[0].startswith("impersonate-")]
    return Call(request, credentials_of(context), read_headers(headers) if headers else None, door=context)
