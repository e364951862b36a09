"""/revisions?at=MOMENT: the revision of a past moment, now by default, for lists with resourceVersionMatch=Exact."""

from __future__ import annotations

from datetime import UTC, datetime

from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.plain_paths import PlainPaths, json_answer
from tiphys_apiserver.storage.moments import Moments
from tiphys_component.clock import Clock


def add_revision_path(paths: PlainPaths, moments: Moments, clock: Clock) -> None:
    """Serve it."""

    async def revision(exchange: Exchange) -> Answer:
        moment = _moment(exchange.query["at"]) if "at" in exchange.query else clock.now()
        return json_answer({"at": moment.isoformat(), "resourceVersion": str(moments.at(moment))})

    paths.add("/revisions", revision)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as err:
        raise BadRequest(f"at: {text!r} is no moment; write one such as 2026-01-31T12:00:00Z") from err
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
