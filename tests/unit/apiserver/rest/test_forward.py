"""Answers of other servers that are passed on."""

from __future__ import annotations

import asyncio

import pytest

from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.rest.forward import raise_refusal
from tiphys_apiserver.rest.kubelet_streams import refusal


def answer(body: bytes) -> asyncio.StreamReader:
    """A reader of an answer's body, its end included."""
    reader = asyncio.StreamReader()
    reader.feed_data(body)
    reader.feed_eof()
    return reader


async def test_refusal_of_plain_text_is_raised_with_its_reason_and_text() -> None:
    text = b'container "c" in pod "p" is waiting to start: ErrImagePull'
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(text)
    with pytest.raises(BadRequest, match='container "c" in pod "p" is waiting to start: ErrImagePull'):
        await raise_refusal(answer(text), head, refusal)


async def test_answer_that_is_no_refusal_is_left_unread() -> None:
    reader = answer(b"a line")
    await raise_refusal(reader, b"HTTP/1.1 200 OK\r\n\r\n", refusal)
    assert await reader.read() == b"a line"
