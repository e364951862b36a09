"""Compiles the contracts when the distribution is built or installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileProtos(BuildHookInterface):
    """Runs hack/compile_protos.py of the checkout; an sdist carries the compiled files already."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before files are gathered."""
        script = Path(self.root).parent / "hack" / "compile_protos.py"
        if not script.exists():
            return
        spec = importlib.util.spec_from_file_location("compile_protos", script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.compile_protos(Path(self.root))
