"""The pytest plugin inside a guest: writes each test's reports to a file, a line of JSON each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


class Reporter:
    """Appends to ``file`` what happened in each phase of each test."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        self._config = config
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._file.open("a") as file:
            file.write(json.dumps(data, default=str) + "\n")


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """Check that a module's captures have left the kernel, so that the module that leaves one is named."""
    import leftovers  # beside the tests, found once they are collected

    yield
    leftovers.gone()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Reporter(config, Path(os.environ["GUEST_REPORTS"])))
