"""Log lines."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tiphys_component import log


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_line_has_message_first_and_quotes_what_needs_it() -> None:
    out = io.StringIO()
    log.configure("info", "text", out)
    log.get_logger("scheduler", node="n1").info("pod bound", pod="a/b", why="fits best", empty="")
    line = out.getvalue()
    assert line.endswith(' info    pod bound node=n1 pod=a/b why="fits best" empty="" logger=scheduler\n')


def test_json_line_is_one_object() -> None:
    out = io.StringIO()
    log.configure("debug", "json", out)
    log.get_logger("kubelet").debug("synced", rv=7)
    line = json.loads(out.getvalue())
    assert {key: line[key] for key in ("level", "msg", "logger", "rv")} == {
        "level": "debug",
        "msg": "synced",
        "logger": "kubelet",
        "rv": 7,
    }


def test_lines_below_the_level_are_dropped() -> None:
    out = io.StringIO()
    log.configure("warning", "text", out)
    log.get_logger("x").info("quiet")
    assert out.getvalue() == ""


def test_exception_comes_with_its_traceback() -> None:
    out = io.StringIO()
    log.configure("info", "text", out)
    try:
        raise KeyError("k")
    except KeyError:
        log.get_logger("x").exception("failed")
    assert "Traceback" in out.getvalue()
    assert out.getvalue().endswith("KeyError: 'k'\n")


def test_warnings_of_libraries_come_the_same_way() -> None:
    out = io.StringIO()
    log.configure("info", "text", out)
    logging.getLogger("aiohttp").warning("slow %s", "peer")
    logging.getLogger("aiohttp").info("chatter")
    assert "warning slow peer logger=aiohttp" in out.getvalue()
    assert "chatter" not in out.getvalue()


@pytest.mark.parametrize(("level", "form"), [("loud", "text"), ("info", "xml")])
def test_unknown_level_or_format_is_refused(level: str, form: str) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        log.configure(level, form)
