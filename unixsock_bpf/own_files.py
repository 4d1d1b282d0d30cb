"""Where this package's files that are no Python are: the dissector, the extcap, the helper, the manual."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: The folder that holds the package: a checkout, an installed library, or site-packages.
ROOT = Path(__file__).resolve().parents[1]


def _places() -> Iterator[Path]:
    """Yield the folders in which pip, setuptools or ``unixsock install`` may have put them, nearest first.

    pip puts data files below its prefix, three folders above site-packages; with --target, beside them.
    """
    yield ROOT
    yield ROOT / "share" / "unixsock"
    if ROOT.name in ("site-packages", "dist-packages"):
        yield ROOT.parents[2] / "share" / "unixsock"


def find(relative: str) -> Path | None:
    """Return the file of this package at ``relative``, a path in a checkout; None if it was not installed."""
    return next((folder / relative for folder in _places() if (folder / relative).is_file()), None)
