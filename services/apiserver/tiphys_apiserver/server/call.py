"""One request on its way through the server, whichever door it came in by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from tiphys_apiserver.authentication.interface import ANONYMOUS_USER, Credentials, UserInfo
from tiphys_apiserver.authorization.impersonation import Impersonation
from tiphys_apiserver.authorization.interface import Attributes
from tiphys_apiserver.server.request_info import RequestInfo

# Characters of all warnings. Source: kubernetes apiserver pkg/endpoints/filters/warning.go, truncateAtTotalRunes.
_MOST_WARNED = 4096
# Subresources whose requests are streams or tunnels.
LASTING_SUBRESOURCES = frozenset({"exec", "attach", "portforward", "proxy", "log"})


class Seat(Protocol):
    """A request's share of what the server can do at once."""

    def release(self) -> None:
        """Give it back."""
        ...


@dataclass(slots=True)
class Call:
    """What is asked (info), by whom, and how a write is to be done.

    user is the caller until the chain has authenticated and impersonated; then it is whom the
    request acts as. warnings are told to the caller beside the answer. user_agent names the writer
    where field_manager does not.

    door and sent are read by auditing alone: the exchange or gRPC context that the request came by, and what a gRPC
    request carries. streams says that the answer goes on after the endpoint has returned. record is what auditing notes
    of the request, None where it notes nothing.
    """

    info: RequestInfo
    credentials: Credentials
    impersonation: Impersonation | None = None
    user: UserInfo = ANONYMOUS_USER
    label_selector: str = ""
    field_selector: str = ""
    dry_run: bool = False
    field_manager: str = ""
    user_agent: str = ""
    field_validation: str = ""
    warnings: list[str] = field(default_factory=list)
    door: Any = None
    sent: Any = None
    streams: bool = False
    record: Any = None
    # What flow control reads beside info, and has answered: the seats held, and headers for the answer.
    limit: int = 0
    sends_initial_events: bool = False
    seat: Seat | None = None
    flow_headers: tuple[tuple[str, str], ...] = ()
    # What the metrics read: a patch that is an apply, seconds that webhooks took, and whether the door counts itself.
    is_apply: bool = False
    # Whether the object that came has its defaults already: one like it was read before.
    is_filled: bool = False
    webhooks_s: float = 0.0
    is_counted: bool = False

    def warn(self, text: str) -> None:
        """Tell the caller something beside the answer, as long as headers have room for it."""
        if text not in self.warnings and sum(map(len, self.warnings)) + len(text) <= _MOST_WARNED:
            self.warnings.append(text)

    def waited(self, seconds: float) -> None:
        """Note that a webhook took so long."""
        self.webhooks_s += seconds

    def free_seat(self) -> None:
        """Give back what flow control has given, once: at the end, or when a watch has begun."""
        if self.seat is not None:
            seat, self.seat = self.seat, None
            seat.release()

    @property
    def lasts(self) -> bool:
        """Whether the request is a stream or a tunnel; of these only a watch holds a seat, until it has begun."""
        return self.info.verb == "watch" or self.info.subresource in LASTING_SUBRESOURCES

    def attributes(self) -> Attributes:
        """The question to put to the authorizer."""
        info = self.info
        if not info.is_resource_request:
            return Attributes(self.user, info.verb, False, path=info.path)
        return Attributes(
            self.user,
            info.verb,
            True,
            path=info.path,
            api_group=info.api_group,
            api_version=info.api_version,
            resource=info.resource,
            subresource=info.subresource,
            namespace=info.namespace,
            name=info.name,
            field_selector=self.field_selector,
            label_selector=self.label_selector,
        )
