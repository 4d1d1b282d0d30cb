"""The table of what works on which kernel, from the results of guest tests."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vm.plugin import GuestItem, GuestRun

#: What stands above the table in its file; the text above that is people's.
_TITLE = "## The whole table\n"
_HEAD = """
Written by `make test-kernels` from the results of its run; don't edit it. Each row is a test under
`tests/kernel`, each column a stock Debian kernel and a way of attaching the probe, and each cell was run:
✓ passed, ✗ failed, n/a: the test says that this kernel can't do it. Several variants of a test are one cell
if they don't have rows of their own; ✗ 1/3 means that one of three failed.

"""


class Table:
    """Rows are test functions by their docstrings' first lines, in modules; columns are runs.

    Variants of functions with the marker ``rows`` are rows by their names.
    """

    def __init__(self, runs: list[GuestRun]) -> None:
        self._runs = runs

    def write(self, path: Path) -> None:
        """Put the table into a page, below its title."""
        above = path.read_text().partition(_TITLE)[0] if path.exists() else ""
        path.write_text(above + _TITLE + self.markdown())

    def markdown(self) -> str:
        """The table, and how to read it."""
        lines = [
            "| | " + " | ".join(run.label for run in self._runs) + " |",
            "|---" * (len(self._runs) + 1) + "|",
            "| bcc's version | " + " | ".join(run.bcc for run in self._runs) + " |",
        ]
        section = ""
        for key, (title, row) in self._rows().items():
            if title != section:
                section = title
                lines.append(f"| **{section}** |" + " |" * len(self._runs))
            cells = " | ".join(self._cell(run, key) for run in self._runs)
            lines.append(f"| {row} | {cells} |")
        return _HEAD + "\n".join(lines) + "\n"

    def _rows(self) -> dict[str, tuple[str, str]]:
        """Module and feature, by test function."""
        rows = {}
        for item in self._runs[0].items:
            function = getattr(item.original, "function", None)
            module = inspect.getmodule(function)
            name = function.__name__ if function else item.original.name
            title = _first_line(module) or item.original.path.stem
            row = _first_line(function) or name.removeprefix("test_").replace("_", " ")
            rows[_key(item)] = (title, _variant(item) or row)
        return rows

    def _cell(self, run: GuestRun, key: str) -> str:
        outcomes = [_outcome(run, item) for item in run.items if _key(item) == key]
        failed = outcomes.count("failed")
        if failed:
            return "✗" if len(outcomes) == 1 else f"✗ {failed}/{len(outcomes)}"
        return "✓" if "passed" in outcomes else "n/a"


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0].rstrip(".").replace("|", "\\|")


def _key(item: GuestItem) -> str:
    return item.original.nodeid if _variant(item) else item.original.nodeid.partition("[")[0]


def _variant(item: GuestItem) -> str:
    """What its row is called, if it has one of its own."""
    if item.original.get_closest_marker("rows") is None:
        return ""
    return item.original.nodeid.partition("[")[2].removesuffix("]")


def _outcome(run: GuestRun, item: GuestItem) -> str:
    # Reports carry the item's own name once it has been shown.
    reports = run.reports.get(item.original.nodeid, [])
    outcomes = {report.outcome for report in reports}
    if not reports or "failed" in outcomes:
        return "failed"
    return "skipped" if "skipped" in outcomes else "passed"
