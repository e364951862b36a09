"""Who may work on the node's network now: the calls of one container in turn, and the collector alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Lets the calls of one container be served one after the other, those of others beside them, and garbage alone.

    A runtime that gave up on an ADD sends its DEL at once: that must find what the ADD is still making. And what an ADD
    is making must not look like garbage. Fair to nobody: calls are few and short.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        self._calls = 0
        self._is_alone = False

    @contextmanager
    def of(self, container_id: str) -> Iterator[None]:
        """Waits for the container's turn; "" is no container and waits for the collector only."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and container_id not in self._busy)
            self._calls += 1
            if container_id:
                self._busy.add(container_id)
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._busy.discard(container_id)
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps new calls out and waits for those that are on their way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._is_alone = True
            self._changed.wait_for(lambda: self._calls == 0)
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()
