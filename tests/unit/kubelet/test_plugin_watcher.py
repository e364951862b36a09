"""Plugins found by their sockets: registered at once, refused with a reason, followed over every restart."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.plugins import KeepingHandler, Registrar, registration_socket
from tests.support.promptness import PROMPTLY_S
from tiphys_component.clock import SystemClock
from tiphys_kubelet import plugin_watcher
from tiphys_kubelet.plugin_watcher import PluginWatcher


@dataclass(slots=True)
class Watched:
    """A directory that is watched."""

    directory: Path
    handler: KeepingHandler

    def path(self, name: str) -> Path:
        """Of a socket."""
        return self.directory / name


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, as the path of a socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="klt") as path:
        registry = Path(path) / "plugins_registry"
        registry.mkdir()
        yield registry


@asynccontextmanager
async def watching(directory: Path) -> AsyncIterator[Watched]:
    """A watcher at work."""
    handler = KeepingHandler()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(PluginWatcher(directory, {"CSIPlugin": handler}, SystemClock()).run())
        yield Watched(directory, handler)
        task.cancel()


async def meet(watched: Watched) -> None:
    """Returns when the watcher has met what lies in the directory."""
    async with registration_socket(watched.path("met.sock"), Registrar(name="met")) as plugin:
        await plugin.wait_told()


async def test_plugin_is_registered_and_told_so(directory: Path) -> None:
    async with watching(directory) as watched, registration_socket(watched.path("a.sock"), Registrar()) as plugin:
        assert (await plugin.wait_told()).plugin_registered
        assert watched.handler.calls == [("validate", "a.driver", "1.0.0"), ("register", "a.driver", "a.sock")]


async def test_plugin_that_was_there_before_is_registered(directory: Path) -> None:
    async with registration_socket(directory / "a.sock", Registrar()) as plugin, watching(directory):
        assert (await plugin.wait_told()).plugin_registered


async def test_socket_in_a_new_directory_below_is_found(directory: Path) -> None:
    async with watching(directory) as watched:
        (directory / "deep" / "er").mkdir(parents=True)
        async with registration_socket(watched.path("deep/er/a.sock"), Registrar()) as plugin:
            assert (await plugin.wait_told()).plugin_registered


async def test_E26_stale_socket_after_a_reboot_is_registered_within_two_seconds_of_its_plugin(directory: Path) -> None:
    path = directory / "a.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    async with watching(directory) as watched:
        await meet(watched)
        path.unlink()
        began = time.monotonic()
        async with registration_socket(path, Registrar()) as plugin:
            assert (await plugin.wait_told()).plugin_registered
        assert time.monotonic() - began < PROMPTLY_S


async def test_E26_listener_that_takes_up_a_stale_socket_in_place_is_found_by_asking_again(directory: Path) -> None:
    late = socket.socket(socket.AF_UNIX)
    late.bind(str(directory / "a.sock"))
    async with watching(directory) as watched:
        await meet(watched)
        # The same file begins to answer: nothing in the directory changes.
        late.listen()
        began = time.monotonic()
        connection, _ = await asyncio.to_thread(late.accept)
        connection.close()
        assert time.monotonic() - began < PROMPTLY_S
        late.close()


async def test_plugin_whose_socket_goes_is_deregistered(directory: Path) -> None:
    async with watching(directory) as watched:
        async with registration_socket(watched.path("a.sock"), Registrar()) as plugin:
            await plugin.wait_told()
        await watched.handler.until(("deregister", "a.driver"))


async def test_plugin_started_again_at_the_same_path_is_registered_again(directory: Path) -> None:
    async with watching(directory) as watched:
        for count in (1, 2, 3):
            async with registration_socket(watched.path("a.sock"), Registrar()) as plugin:
                assert (await plugin.wait_told()).plugin_registered
                assert watched.handler.calls.count(("register", "a.driver", "a.sock")) == count


async def test_refused_plugin_is_told_the_reason(directory: Path) -> None:
    async with watching(directory) as watched:
        watched.handler.refusal = "version 0.3 is not supported"
        async with registration_socket(watched.path("a.sock"), Registrar()) as plugin:
            told = await plugin.wait_told()
    assert (told.plugin_registered, told.error) == (False, "version 0.3 is not supported")


async def test_type_that_nobody_serves_is_refused(directory: Path) -> None:
    async with (
        watching(directory) as watched,
        registration_socket(watched.path("a.sock"), Registrar(kind="Strange")) as plugin,
    ):
        told = await plugin.wait_told()
    assert told.error.startswith("no handler registered for plugin type: Strange at socket ")


async def test_newest_of_a_name_wins_and_the_older_returns_when_it_goes(directory: Path) -> None:
    async with watching(directory) as watched, registration_socket(watched.path("old.sock"), Registrar()) as old:
        await old.wait_told()
        async with registration_socket(watched.path("new.sock"), Registrar()) as new:
            await new.wait_told()
            assert watched.handler.calls[-1] == ("register", "a.driver", "new.sock")
        await watched.handler.until(("register", "a.driver", "old.sock"), 2)


async def test_name_that_is_given_back_while_the_plugin_is_being_told_is_taken_up_again(directory: Path) -> None:
    """The newer of the name goes while the older one's registration is at its last step."""
    async with watching(directory) as watched:
        noticed = asyncio.Event()
        slow = Registrar(notice_after=noticed)
        async with registration_socket(watched.path("old.sock"), slow):
            await watched.handler.until(("register", "a.driver", "old.sock"))
            async with registration_socket(watched.path("new.sock"), Registrar()) as new:
                await new.wait_told()
            await watched.handler.until(("deregister", "a.driver"))
            noticed.set()
            await watched.handler.until(("register", "a.driver", "old.sock"), 2)


async def test_older_of_a_name_that_goes_changes_nothing(directory: Path) -> None:
    async with watching(directory) as watched:
        async with registration_socket(watched.path("old.sock"), Registrar()) as old:
            await old.wait_told()
            new = Registrar()
            serving = registration_socket(watched.path("new.sock"), new)
            await serving.__aenter__()
            await new.wait_told()
        async with registration_socket(watched.path("b.sock"), Registrar(name="b.driver")) as other:
            await other.wait_told()
        assert ("deregister", "a.driver") not in watched.handler.calls
        await serving.__aexit__(None, None, None)


async def test_plugin_that_hangs_is_bounded_and_holds_nobody_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_watcher, "CALL_TIMEOUT_S", 0.05)
    hanging = Registrar(name="hangs", hang=True)
    async with watching(directory) as watched, registration_socket(watched.path("a.sock"), hanging):
        async with registration_socket(watched.path("b.sock"), Registrar(name="b")) as plugin:
            assert (await plugin.wait_told()).plugin_registered
        hanging.hang = False
        # It is asked again, and now answers.
        assert (await hanging.wait_told()).plugin_registered


async def test_files_that_are_no_sockets_and_hidden_ones_are_left_alone(directory: Path) -> None:
    async with watching(directory) as watched, registration_socket(watched.path(".a.sock"), Registrar()) as hidden:
        watched.path("notes.txt").touch()
        async with registration_socket(watched.path("b.sock"), Registrar(name="b")) as plugin:
            await plugin.wait_told()
    assert hidden.asked == 0
