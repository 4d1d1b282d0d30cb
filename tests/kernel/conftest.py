"""What holds for every module of tests in a guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from leftovers import gone


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """Check that a module's captures have left the kernel, so that the module that leaves one is named."""
    yield
    gone()
