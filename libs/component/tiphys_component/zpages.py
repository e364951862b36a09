"""Pages for people who debug: /statusz says what runs and since when, /flagz with which flags.

Their text is not meant for programs and may change, as Kubernetes says of its own.
Source: kubernetes component-base/zpages, KEP-4827 and KEP-4828.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tiphys_component.clock import Clock, SystemClock
from tiphys_component.options import flag_names
from tiphys_component.release import KUBERNETES_VERSION, git_version

_WARNING = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees"
    " and is for debugging purposes only."
)
STATUSZ, FLAGZ = "/statusz", "/flagz"
# Flags whose values are secrets themselves, where others name files.
_SECRET = ("password", "secret")


class ZPages:
    """The pages of one process, from when it is made on. paths are other useful pages that it serves.

    own are pages that only this service has, plain text by path, made anew at each look.
    """

    def __init__(
        self,
        name: str,
        options: Any,
        *,
        clock: Clock | None = None,
        paths: Mapping[str, str] | None = None,
        own: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        self._name = name
        self._options = options
        self._clock = clock or SystemClock()
        self._started = self._clock.now()
        self._began = self._clock.monotonic()
        self._paths = {**(paths or {"livez": "/livez", "metrics": "/metrics", "readyz": "/readyz"}), "flagz": FLAGZ}
        self.own = dict(own or {})
        self._paths.update({path.lstrip("/"): path for path in self.own})

    def statusz(self) -> str:
        """What runs here, since when, and where to look next."""
        facts = {
            "Started": _stamp(self._started),
            "Up": _length(self._clock.monotonic() - self._began),
            "Python version": platform.python_version(),
            "Binary version": git_version(),
            "Emulation version": KUBERNETES_VERSION,
        }
        paths = [f"{name}: {path}" for name, path in sorted(self._paths.items())]
        lines = [*(f"{name}: {value}" for name, value in facts.items()), "", "Useful endpoints", "-" * 16, *paths]
        return self._page("statusz", lines)

    def flagz(self) -> str:
        """Every flag and its value."""
        found = sorted(
            f"{name.lstrip('-')}={_shown(name, getattr(self._options, field))}"
            for field, name in flag_names(type(self._options)).items()
        )
        return self._page("flagz", found)

    def _page(self, page: str, lines: Sequence[str]) -> str:
        return "\n".join(["", f"{self._name} {page}", _WARNING, "", *lines]) + "\n"


def _stamp(moment: datetime) -> str:
    return moment.strftime("%a %b %e %H:%M:%S UTC %Y")


def _length(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60} hr {minutes % 60:02} min {rest:02} sec"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return ""
    if any(word in name for word in _SECRET) and not isinstance(value, Path):
        return "[redacted]" if value else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={text}" for key, text in sorted(value.items()))
    return str(value) if not dataclasses.is_dataclass(value) else repr(value)
