"""Structured log lines: a constant message and named values, as text for people or JSON for machines.

configure() is called once, by the service's main; until then structlog's own defaults hold. The configuration is the
process's (structlog keeps it), because a log is the one thing that all parts of it share.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from tiphys_component.absent import absent

# structlog takes rich for its own tracebacks, which we do not use: 65 ms and 4 MB of every service.
with absent("rich"):
    import structlog
    from structlog.typing import FilteringBoundLogger, WrappedLogger

Logger = FilteringBoundLogger
"""What get_logger returns: debug, info, warning, error, exception and bind, each with named values."""

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS = ("text", "json")

_Event = MutableMapping[str, Any]


def get_logger(name: str, **values: object) -> Logger:
    """A logger whose lines carry logger=name and the given values; cheap, made once a module or object."""
    return cast(Logger, structlog.get_logger(logger_name=name, **values))


def configure(level: str = "info", format: str = "text", stream: TextIO | None = None) -> None:
    """Send lines of at least this level to the stream (stderr), also those of libraries that use the logging module.

    Raises ValueError for a level or format that is not in LEVELS or FORMATS.
    """
    if level not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}, got {level!r}")
    if format not in FORMATS:
        raise ValueError(f"log format must be one of {', '.join(FORMATS)}, got {format!r}")
    out = stream if stream is not None else sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            _stamp,
            _render_json if format == "json" else _render_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    # Libraries chatter at info; what they warn of is ours to show.
    root.setLevel(max(LEVELS[level], logging.WARNING))


_HEAD = {"time": "time", "level": "level", "logger": "logger_name", "msg": "event"}


def _stamp(_logger: WrappedLogger, method: str, event: _Event) -> _Event:
    event["level"] = method
    event["time"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return event


def _render_json(_logger: WrappedLogger, _method: str, event: _Event) -> str:
    head = {key: event.pop(name, "") for key, name in _HEAD.items()}
    line = {**head, **event}
    return json.dumps(line, default=str, ensure_ascii=False)


def _render_text(_logger: WrappedLogger, _method: str, event: _Event) -> str:
    head = f"{event.pop('time')} {event.pop('level'):<7} {event.pop('event')}"
    name, trace = event.pop("logger_name", ""), event.pop("exception", "")
    values = "".join(f" {key}={_text_value(value)}" for key, value in event.items())
    return f"{head}{values}{f' logger={name}' if name else ''}{chr(10) + trace if trace else ''}"


def _text_value(value: object) -> str:
    text = str(value)
    if not text or any(char in ' "=' or not char.isprintable() for char in text):
        return json.dumps(text, ensure_ascii=False)
    return text


class _Bridge(logging.Handler):
    """Carries records of the logging module into ours."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name, number in LEVELS.items() if record.levelno <= number), "error")
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        logger = get_logger(record.name)
        getattr(logger, level)(record.getMessage(), **({"exc_info": exc_info} if exc_info else {}))
