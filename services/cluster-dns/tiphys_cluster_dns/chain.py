"""The chain of plugins: each answers a question or hands it on. The order is here and only here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import dns.flags
import dns.message
import dns.rcode


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and the plugin that gave it."""

    message: dns.message.Message
    plugin: str


class Plugin(Protocol):
    """One link of the chain."""

    name: str

    async def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        """The response, or None to hand the question on. Never raises for what a client sends."""
        ...


class Chain:
    """Asks each plugin in turn; who has no answer anywhere is refused."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._plugins = tuple(plugins)

    async def resolve(self, query: dns.message.Message) -> Answer:
        """The first answer in the order of the plugins."""
        if len(query.question) != 1:
            return Answer(_failure(query, dns.rcode.FORMERR), "chain")
        for plugin in self._plugins:
            found = await plugin.answer(query)
            if found is not None:
                return Answer(found, plugin.name)
        return Answer(_failure(query, dns.rcode.REFUSED), "chain")


def _failure(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.set_rcode(code)
    return response
