"""What resourceVersion, resourceVersionMatch, limit and continue mean together, and the continue token.

Source: the table in Kubernetes' API concepts, "Resource versions", and apimachinery
pkg/apis/meta/internalversion/validation for the refusals.
"""

from __future__ import annotations

import base64
import binascii
import enum
from dataclasses import dataclass

import orjson

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import BadRequest, Expired, Invalid, StatusCause, StatusDetails, Timeout
from tiphys_apimachinery.field_error import FieldError, quote

EXACT = "Exact"
NOT_OLDER_THAN = "NotOlderThan"
_TOKEN_VERSION = "meta.k8s.io/v1"
# The revision in the token of a list that goes on with whatever is there now.
_INCONSISTENT = -1


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Options of a list as the caller wrote them."""

    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """Options of a watch as the caller wrote them; ``send_initial_events`` None is not given."""

    resource_version: str = ""
    resource_version_match: str = ""
    allow_bookmarks: bool = False
    send_initial_events: bool | None = None


class Freshness(enum.Enum):
    """Which state a read may be answered from."""

    # Nothing acknowledged before the call is missing.
    CONSISTENT = enum.auto()
    # Whatever is at hand.
    ANY = enum.auto()
    # The revision or later.
    NOT_OLDER = enum.auto()
    # The revision and no other.
    EXACT = enum.auto()


@dataclass(frozen=True, slots=True)
class ListPlan:
    """A list query understood. ``start_after`` is relative to the list's prefix."""

    freshness: Freshness
    revision: int = 0
    start_after: str = ""
    is_continued: bool = False


def plan_list(query: ListQuery) -> ListPlan:
    """Raises Invalid for options that exclude each other, BadRequest for what can't be read, Expired never."""
    errors = _match_errors(query)
    if errors:
        raise Invalid.of("ListOptions", "", errors, group="meta.k8s.io")
    if query.limit < 0:
        raise BadRequest(f"limit must not be negative, got {query.limit}")
    revision = parse_resource_version(query.resource_version)
    if query.continue_token:
        if revision:
            raise BadRequest("specifying resource version is not allowed when using continue")
        return _plan_continued(query.continue_token)
    if query.resource_version == "":
        return ListPlan(Freshness.CONSISTENT)
    if revision == 0:
        return ListPlan(Freshness.ANY)
    if query.resource_version_match == EXACT or (query.limit and not query.resource_version_match):
        return ListPlan(Freshness.EXACT, revision)
    return ListPlan(Freshness.NOT_OLDER, revision)


def _match_errors(query: ListQuery) -> list[FieldError]:
    match = query.resource_version_match
    field = "resourceVersionMatch"
    if not match:
        return []
    errors = []
    if query.continue_token:
        errors.append(FieldError.forbidden(field, "resourceVersionMatch is forbidden when continue is provided"))
    if not query.resource_version:
        errors.append(
            FieldError.forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided")
        )
    if match not in (EXACT, NOT_OLDER_THAN):
        errors.append(FieldError.not_supported(field, match, [EXACT, NOT_OLDER_THAN, ""]))
    elif match == EXACT and query.resource_version == "0":
        errors.append(FieldError.forbidden(field, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    return errors


def _plan_continued(token: str) -> ListPlan:
    revision, start_after = read_token(token)
    if revision == _INCONSISTENT:
        return ListPlan(Freshness.CONSISTENT, 0, start_after, is_continued=True)
    return ListPlan(Freshness.EXACT, revision, start_after, is_continued=True)


def plan_watch(query: WatchQuery) -> int | None:
    """The revision to begin after; None for the newest state first, 0 for any state first.

    Raises Invalid or BadRequest.
    """
    errors = []
    match, field = query.resource_version_match, "resourceVersionMatch"
    if query.send_initial_events is not None:
        if match != NOT_OLDER_THAN:
            errors.append(
                FieldError.forbidden(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
            )
    elif match:
        errors.append(
            FieldError.forbidden(
                field, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        )
    if errors:
        raise Invalid.of("ListOptions", "", errors, group="meta.k8s.io")
    if query.resource_version == "":
        return None
    return parse_resource_version(query.resource_version)


def parse_resource_version(text: str) -> int:
    """The revision, 0 for empty text. Raises BadRequest."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise BadRequest(f"invalid resource version: {quote(text)}")
    return int(text)


def make_token(revision: int, start_after: str) -> str:
    """An opaque token: the revision of the list and the last key given, relative to the list's prefix."""
    text = orjson.dumps({"v": _TOKEN_VERSION, "rv": revision, "start": start_after + "\0"})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def read_token(token: str) -> tuple[int, str]:
    """Revision and key of a token. Raises BadRequest."""
    try:
        found = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, revision, start = found["v"], found["rv"], found["start"]
        if version != _TOKEN_VERSION or not isinstance(revision, int) or not isinstance(start, str):
            raise ValueError(f"its version is {version!r}")
    except (ValueError, TypeError, KeyError, binascii.Error) as err:
        raise BadRequest(f"continue key is not valid: {err}") from err
    if not start or revision == 0 or revision < _INCONSISTENT or ".." in start.split("/"):
        raise BadRequest("continue key is not valid: it has no start or revision")
    return revision, start.removesuffix("\0")


class ContinueExpired(Expired):
    """A page's token is too old; the Status carries another that goes on with the newest state."""

    def __init__(self, start_after: str) -> None:
        super().__init__(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list"
            " without the continue parameter, or use the continue token in this response to retrieve the remainder of"
            " the results. Continuing with the provided token results in an inconsistent list - objects that were"
            " created, modified, or deleted between the time the first chunk was returned and now may show up in the"
            " list."
        )
        self.continue_token = make_token(_INCONSISTENT, start_after)

    def to_status(self) -> meta_pb2.Status:
        """The Status, with the token in its metadata."""
        status = super().to_status()
        setattr(status.metadata, "continue", self.continue_token)
        return status


def too_large(requested: int, current: int) -> Timeout:
    """The error for a revision that has not come within the time one waits for it."""
    error = Timeout.of(f"Too large resource version: {requested}, current: {current}", 1)
    cause = StatusCause("ResourceVersionTooLarge", "Too large resource version")
    return Timeout(error.message, details=StatusDetails(causes=(cause,), retry_after_s=1))
