from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tiphys_cni.turns import Turns


def test_calls_of_one_container_take_turns_and_others_do_not_wait() -> None:
    turns, order = Turns(), []
    inside, go_on = threading.Event(), threading.Event()

    def add() -> None:
        with turns.of("a"):
            inside.set()
            assert go_on.wait(5)
            order.append("add of a")

    def delete() -> None:
        with turns.of("a"):
            order.append("del of a")

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(add)
        assert inside.wait(5)
        second = threads.submit(delete)
        with turns.of("b"), turns.of(""):
            order.append("b")
        go_on.set()
        first.result(5)
        second.result(5)

    assert order == ["b", "add of a", "del of a"]
    with turns.alone():
        order.append("alone")
