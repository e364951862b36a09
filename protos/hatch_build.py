"""Compiles the contracts when the distribution is built or installed."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileProtos(BuildHookInterface):
    """Compiles beside the sources for an editable install, and otherwise into a folder that ends with the build.

    A wheel never takes what lies beside the sources: newer tools may have compiled that, and code asks for a runtime
    as new as the tools. The version of the tools in pyproject.toml is what the requirements there are true of.
    """

    PLUGIN_NAME = "custom"
    _made: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before files are gathered."""
        root = Path(self.root)
        compiler = _compiler(root)
        if version == "editable":
            compiler.compile_protos(root)
            return
        self._made = tempfile.TemporaryDirectory(prefix="tiphys-protos-")
        out = Path(self._made.name)
        compiler.compile_protos(root, out)
        for path in sorted(out.glob("tiphys/**/*")):
            name = path.relative_to(out).as_posix()
            # The packages' own files come with the sources.
            if path.is_file() and path.name != "__init__.py":
                build_data["force_include"][str(path)] = name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling when the distribution is written."""
        if self._made is not None:
            self._made.cleanup()


def _compiler(root: Path) -> ModuleType:
    """The module that compiles: the checkout's, or the copy that lies in an sdist."""
    places = (root.parent / "hack" / "compile_protos.py", root / "compile_protos.py")
    script = next(place for place in places if place.is_file())
    spec = importlib.util.spec_from_file_location("compile_protos", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
