"""Rules for every test: in CI nothing is skipped in silence."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

from tests.support import chance

# A loaded machine makes no test wrong. What fails prints how to draw it again.
settings.register_profile("tiphys", derandomize=chance.is_fixed(), deadline=None, print_blob=True)
settings.load_profile("tiphys")


def pytest_report_header() -> str:
    """What this run draws from."""
    return f"TIPHYS_TEST_SEED={chance.seed()}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """Where CI is set a skip is a failure: a missing prerequisite is CI's to install."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {reason}"
    return report
