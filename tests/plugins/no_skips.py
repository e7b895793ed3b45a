"""Where the continuous integration runs nothing may be skipped: a skipped test is a failure that names its reason.

pytest -p no_skips        (scripts/test does so when CI is set)
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

__all__: list[str] = []


def _forbid(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped where nothing may be: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, pytest.TestReport]:
    report = yield
    _forbid(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, pytest.CollectReport]:
    report = yield
    _forbid(report)
    return report
