"""Conversion of custom objects by a webhook: many objects a question, and no question asked twice.

An object lies in the store, and in the cache, in the version in which it was last written. Whoever reads it in another
one asks the webhook; answers are kept by object version, so that of many watchers only the first one waits.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import APIError, InternalError
from tiphys_apiserver.admission.webhooks.caller import CallFailed, shown
from tiphys_apiserver.admission.webhooks.hooks import Endpoint, read_endpoint
from tiphys_apiserver.cel.aside import Aside
from tiphys_apiserver.crd.conversion_review import BadConversion, converted, question
from tiphys_apiserver.crd.info import CustomInfo
from tiphys_apiserver.crd.strategy import accept
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat

# Source: apiserver pkg/util/webhook; a definition can't say another.
TIMEOUT_S: Final = 30.0
# Objects of one question. A list of thousands would be beyond what webhooks read.
_BATCH: Final = 500
# Bytes of converted objects kept for each served version.
_KEPT_BYTES: Final = 8 << 20

_Key = tuple[str, int]


class Caller(Protocol):
    """Posts to webhooks. Raises CallFailed."""

    async def post(self, endpoint: Endpoint, body: bytes, *, timeout_s: float) -> bytes:
        """The answer's body."""
        ...


class _GivenUp(Exception):
    """Who asked the webhook has gone before the answer."""


@dataclass(frozen=True, slots=True)
class ConversionWebhook:
    """The webhook of one definition."""

    endpoint: Endpoint
    caller: Caller
    new_uid: Callable[[], str]
    timeout_s: float = TIMEOUT_S

    async def convert(self, objects: Sequence[Any], info: CustomInfo) -> list[Any]:
        """The objects in the version of info, in order; those that have it already are not sent.

        Raises InternalError naming kind and webhook where there is no answer, or none that can be used.
        """
        made = list(objects)
        foreign = [place for place, obj in enumerate(objects) if obj.KIND.api_version != info.api_version]
        for start in range(0, len(foreign), _BATCH):
            places = foreign[start : start + _BATCH]
            answers = await self._ask([objects[place] for place in places], info)
            for place, answer in zip(places, answers, strict=True):
                made[place] = answer
        return made

    async def _ask(self, objects: Sequence[Any], info: CustomInfo) -> list[Any]:
        uid = self.new_uid()
        asked = [json_codec.to_json(obj) for obj in objects]
        body = question(asked, info.api_version, uid)
        try:
            answer = await self.caller.post(self.endpoint, body, timeout_s=self.timeout_s)
            return [_read(info, document) for document in converted(answer, asked, info.api_version, uid)]
        except (CallFailed, BadConversion, APIError) as err:
            where = shown(self.endpoint, self.timeout_s)
            raise InternalError(
                f"conversion webhook for {objects[0].KIND.api_version}, Kind={info.kind} failed: {err} ({where})"
            ) from err


def _read(info: CustomInfo, document: Mapping[str, Any]) -> Any:
    obj: Any = json_codec.from_json(info.message, dict(document))
    info.schema.fill(obj.content)
    return obj


class WebhookConverter:
    """Both ways between one served version and the stored one. See RemoteConverter.

    served_format is how objects of the served version are written.
    """

    def __init__(
        self,
        webhook: ConversionWebhook,
        info: CustomInfo,
        home: CustomInfo,
        served_format: ObjectFormat,
        *,
        is_home_of_all: bool = False,
    ) -> None:
        self.format = served_format
        self.is_home_of_all = is_home_of_all
        self._webhook = webhook
        self._info = info
        self._home = home
        self._aside = Aside()
        self._kept: OrderedDict[_Key, CachedObject] = OrderedDict()
        self._kept_bytes = 0
        # Objects that somebody asks the webhook about just now.
        self._asked: dict[_Key, asyncio.Future[CachedObject]] = {}

    async def to_storage(self, obj: Any) -> Any:
        """The object in the stored version. Raises Invalid for one that its own version's schema does not take."""
        if obj.KIND.api_version != self._home.api_version:
            await self._aside.run(partial(accept, obj, self._info))
        return (await self._webhook.convert([obj], self._home))[0]

    async def from_storage(self, obj: Any) -> Any:
        """The object in the served version."""
        return (await self._webhook.convert([obj], self._info))[0]

    async def view(self, items: Sequence[CachedObject]) -> list[CachedObject]:
        """Cached objects in the served version, in order."""
        found = list(items)
        waiting: dict[int, asyncio.Future[CachedObject]] = {}
        mine: list[int] = []
        for place, item in enumerate(items):
            if item.api_version == self._info.api_version:
                continue
            key = (item.key, item.rv)
            if not item.key:
                found[place] = self._bookmark(item)
            elif key in self._kept:
                found[place] = self._kept[key]
                self._kept.move_to_end(key)
            elif key in self._asked:
                waiting[place] = self._asked[key]
            else:
                mine.append(place)
                self._asked[key] = asyncio.get_running_loop().create_future()
        await self._convert(items, mine, found)
        for place, future in waiting.items():
            try:
                found[place] = await asyncio.shield(future)
            except _GivenUp:
                found[place] = (await self.view([items[place]]))[0]
        return found

    async def _convert(self, items: Sequence[CachedObject], places: Sequence[int], found: list[CachedObject]) -> None:
        keys = {place: (items[place].key, items[place].rv) for place in places}
        failure: Exception = _GivenUp()
        try:
            if places:
                answers = await self._webhook.convert([items[place].message() for place in places], self._info)
                for place, answer in zip(places, answers, strict=True):
                    found[place] = self._keep(items[place], answer)
        except APIError as err:
            failure = err
            raise
        finally:
            for place, key in keys.items():
                future = self._asked.pop(key)
                if found[place] is items[place]:
                    future.set_exception(failure)
                    # Nobody may have waited.
                    with suppress(Exception):
                        future.exception()
                else:
                    future.set_result(found[place])

    def _keep(self, item: CachedObject, obj: Any) -> CachedObject:
        made = CachedObject(item.key, item.rv, obj, self.format)
        self._kept[item.key, item.rv] = made
        self._kept_bytes += len(made.raw)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            oldest.drop_json()
            self._kept_bytes -= len(oldest.raw)
        return made

    def _bookmark(self, item: CachedObject) -> CachedObject:
        made: Any = self._info.message()
        made.metadata.CopyFrom(item.message().metadata)
        return CachedObject("", item.rv, made, self.format)


def webhook_of(crd: Any, caller: Caller, new_uid: Callable[[], str]) -> ConversionWebhook | None:
    """The webhook that a definition converts by; None for one that only renames."""
    if crd.spec.conversion.strategy != "Webhook":
        return None
    return ConversionWebhook(read_endpoint(crd.spec.conversion.webhook.clientConfig), caller, new_uid)
