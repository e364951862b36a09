from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster.conftest import read_json, read_text, recorded, wait_for
from tiphys_cluster.child import ChildSpec
from tiphys_cluster.control import ZygoteClient, ZygoteError, ensure_zygote, read_zygote
from tiphys_cluster.layout import Layout
from tiphys_cluster.spawn import zygote_argv

TOY = "tiphys_toy_service"


def toy(layout: Layout, name: str = "toy", mode: str = "", **changes: Any) -> ChildSpec:
    layout.logs.mkdir(parents=True, exist_ok=True)
    argv = (str(layout.home / f"{name}.facts"), mode)
    return ChildSpec(name=name, module=TOY, argv=argv, log=str(layout.log(name)), **changes)


async def facts(layout: Layout, name: str = "toy", *, other_than: int = 0) -> dict[str, object]:
    def look() -> object:
        found = read_json(layout.home / f"{name}.facts")
        return found if found and found["pid"] != other_than else None

    answer: dict[str, object] = await wait_for(look)
    return answer


async def test_a_child_is_a_fork_with_the_modules_already_loaded(layout: Layout, zygote: ZygoteClient) -> None:
    pid = await zygote.start(toy(layout))
    found = await facts(layout)
    process = read_zygote(layout)

    assert process is not None
    assert found["pid"] == pid
    assert found["loaded_by"] == process.pid


async def test_a_child_leads_a_session_and_holds_nothing_of_the_zygote(layout: Layout, zygote: ZygoteClient) -> None:
    await zygote.start(toy(layout))
    found = await facts(layout)

    assert found["session"] == found["group"] == found["pid"]
    # 0, 1, 2, and the one that listdir itself had open.
    assert found["descriptors"] == [0, 1, 2, 3]


async def test_output_of_a_child_goes_to_its_log(layout: Layout, zygote: ZygoteClient) -> None:
    await zygote.start(toy(layout))

    assert await wait_for(lambda: "toy says hello" in read_text(layout.log("toy")))


async def test_starting_twice_is_starting_once(layout: Layout, zygote: ZygoteClient) -> None:
    assert await zygote.start(toy(layout)) == await zygote.start(toy(layout))
    assert len(await zygote.children()) == 1


async def test_a_killed_child_comes_back_and_is_counted(layout: Layout, zygote: ZygoteClient) -> None:
    pid = await zygote.start(toy(layout))
    await facts(layout)
    os.kill(pid, signal.SIGKILL)

    await facts(layout, other_than=pid)
    (child,) = await zygote.children()

    assert child["state"] == "running"
    assert child["restarts"] == 1
    assert child["last_exit"] == "killed by SIGKILL"


async def test_a_child_that_always_ends_is_held_back(layout: Layout, zygote: ZygoteClient) -> None:
    await zygote.start(toy(layout, mode="crash"))

    async with asyncio.timeout(5):
        while (child := (await zygote.children())[0])["state"] != "backoff" or child["restarts"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert child["last_exit"] == "exit code 3"


async def test_another_argument_replaces_the_child(layout: Layout, zygote: ZygoteClient) -> None:
    pid = await zygote.start(toy(layout))
    first = await facts(layout)
    changed = toy(layout, address="192.0.2.1")
    await zygote.start(changed)

    second = await facts(layout, other_than=pid)

    assert second["pid"] != first["pid"]
    assert (await zygote.children())[0]["address"] == "192.0.2.1"


async def test_stop_ends_a_child_for_good(layout: Layout, zygote: ZygoteClient) -> None:
    await zygote.start(toy(layout))
    await facts(layout)
    await zygote.call("stop", name="toy")

    await wait_for(lambda: not layout.child("toy").exists())

    assert await zygote.children() == []


async def test_a_scheduled_child_starts_though_its_caller_is_gone_and_is_started_once(
    layout: Layout, zygote: ZygoteClient
) -> None:
    async with await ZygoteClient.connect(layout.zygote_socket) as caller:
        await caller.schedule(toy(layout))
    first = await facts(layout)

    await zygote.schedule(toy(layout))
    assert [(child["pid"], child["restarts"]) for child in await zygote.children()] == [(first["pid"], 0)]


async def test_a_scheduled_child_that_can_not_be_imported_is_tried_again_and_harms_nobody(
    layout: Layout, zygote: ZygoteClient
) -> None:
    await zygote.schedule(ChildSpec("lost", (), module="tiphys_toy_that_is_not_there"))

    async with asyncio.timeout(5):
        while not (child := (await zygote.children())[0])["last_exit"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (child["state"], child["pid"]) == ("backoff", 0)
    assert "tiphys_toy_that_is_not_there" in child["last_exit"]
    await zygote.call("stop", name="lost")
    assert await zygote.children() == []


async def test_shutdown_ends_every_child_and_the_zygote_even_stubborn_ones(
    layout: Layout, zygote: ZygoteClient
) -> None:
    for name, mode in (("one", ""), ("two", "stubborn")):
        await zygote.start(toy(layout, name, mode, stop_timeout_s=0.2))
        await facts(layout, name)
    zygote_process = read_zygote(layout)
    assert zygote_process is not None

    await zygote.call("shutdown", timeout_s=10)
    await wait_for(lambda: not zygote_process.is_alive())

    assert recorded(layout, "one") is None
    assert recorded(layout, "two") is None
    assert not layout.zygote_socket.exists()


async def test_shutdown_does_not_wait_for_children_that_wait_for_their_restart(
    layout: Layout, zygote: ZygoteClient
) -> None:
    await zygote.start(toy(layout, "high", "crash", stage=2))
    await zygote.start(toy(layout, "low", stage=1))
    async with asyncio.timeout(5):
        while (await zygote.children())[0]["restarts"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    await zygote.call("shutdown", timeout_s=2)


async def test_a_new_zygote_adopts_what_a_killed_one_left(layout: Layout, zygote: ZygoteClient) -> None:
    pid = await zygote.start(toy(layout))
    await facts(layout)
    old = read_zygote(layout)
    assert old is not None
    old.send(signal.SIGKILL)
    await wait_for(lambda: not old.is_alive())

    async with await ensure_zygote(layout) as new:
        (child,) = await new.children()
        assert (child["pid"], child["state"]) == (pid, "running")
        os.kill(pid, signal.SIGKILL)
        again = await facts(layout, other_than=pid)
        assert (await new.children())[0]["pid"] == again["pid"]


async def test_zygote_and_keeper_bring_each_other_back(layout: Layout, zygote: ZygoteClient) -> None:
    keeper = ChildSpec("keeper", zygote_argv(layout), module="tiphys_cluster.keeper", log=str(layout.log("keeper")))
    await zygote.start(keeper)
    first = read_zygote(layout)
    assert first is not None

    first.send(signal.SIGKILL)
    second = await wait_for(lambda: (found := read_zygote(layout)) and found != first and found)
    old_keeper = await wait_for(lambda: recorded(layout, "keeper"))
    old_keeper.send(signal.SIGKILL)
    await wait_for(lambda: (found := recorded(layout, "keeper")) and found != old_keeper)

    assert second.is_alive()


async def test_a_module_that_leaves_a_thread_is_refused(layout: Layout, zygote: ZygoteClient) -> None:
    with pytest.raises(ZygoteError, match="must stay single-threaded"):
        await zygote.preload(["tiphys_toy_threads"])


@pytest.mark.parametrize(
    ("line", "error"),
    [(b"{\n", "JSON"), (b'{"op": "dance"}\n', "KeyError"), (b"[]\n", "TypeError"), (b'{"op": "start"}\n', "KeyError")],
    ids=["no-json", "unknown", "no-object", "no-child"],
)
async def test_a_bad_request_is_answered_and_harms_nothing(
    layout: Layout, zygote: ZygoteClient, line: bytes, error: str
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(layout.zygote_socket))
    writer.write(line)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()

    assert b'"ok": false' in answer
    assert error.encode() in answer
    assert (await zygote.call("ping"))["ok"]


async def test_a_child_in_namespaces_that_are_not_there_says_so_in_its_log(
    layout: Layout, zygote: ZygoteClient, tmp_path: Path
) -> None:
    await zygote.start(toy(layout, netns=str(tmp_path / "absent.net")))

    assert await wait_for(lambda: "absent.net" in read_text(layout.log("toy")))
