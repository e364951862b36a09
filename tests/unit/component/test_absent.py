"""Packages that look as if they were not installed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from tiphys_component.absent import absent


def test_a_package_is_hidden_inside_the_block_only() -> None:
    sys.modules.pop("colorsys", None)
    with absent("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hsv


def test_a_package_that_is_in_use_stays() -> None:
    with absent("sys"):
        assert importlib.import_module("sys") is sys


def test_logs_need_no_rich() -> None:
    program = "import sys, tiphys_component.log; assert 'rich' not in sys.modules; import rich"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
