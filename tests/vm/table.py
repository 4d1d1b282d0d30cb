"""The table of what works on which kernel, from the results of guest tests."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vm.plugin import GuestItem, GuestRun

#: What stands above the tables in their file; all other text there is people's.
_TITLE = "## The whole table\n"
_VERIFIER_TITLE = "## What the verifier follows\n"
VERIFIER_TEST = "test_verifier.py"
#: The most instructions that one program may take; the kernel itself gives up at a million.
MOST_VERIFIED = 120_000
#: Test reports' property with a dictionary of instructions by program, and the way of attaching in front.
VERIFIED = "verified by "
_HEAD = """
Written by `make test-kernels` from the results of its run; don't edit it. Each row is a test under
`tests/kernel`, each column a stock Debian kernel and a way of attaching the probe, and each cell was run:
✓ passed, ✗ failed, n/a: the test says that this kernel can't do it. Several variants of a test are one cell
if they don't have rows of their own; ✗ 1/3 means that one of three failed.

"""

_VERIFIER_HEAD = """
Written by `make test-kernels` (`tests/kernel/test_verifier.py`), too: how many instructions the kernel's
verifier follows for each program of the probe that takes more than {least:,}. It gives up at a million; the
test fails at {most:,}. The compiler makes a difference: each kernel has its release's bcc. Linux 5.10
does not tell.

"""
#: Programs that follow fewer instructions have no row.
_LEAST_VERIFIED = 5_000


class Table:
    """Rows are test functions by their docstrings' first lines, in modules; columns are runs.

    Variants of functions with the marker ``rows`` are rows by their names.
    """

    def __init__(self, runs: list[GuestRun]) -> None:
        self._runs = runs

    def write(self, path: Path) -> None:
        """Put the tables whose tests have run into a page, each below its title."""
        text = path.read_text() if path.exists() else ""
        for title, table in ((_VERIFIER_TITLE, self._verifier()), (_TITLE, self._features())):
            if table:
                before, _, after = text.partition(title)
                _, heading, rest = after.partition("\n## ")
                text = f"{before}{title}{table}{heading}{rest}"
        path.write_text(text)

    def markdown(self) -> str:
        """The tables whose tests have run."""
        return self._verifier() + self._features()

    def _verifier(self) -> str:
        """Rows are programs; the largest comes first."""
        columns = [_verified(run) for run in self._runs]
        largest: dict[str, int] = {}
        for name, count in (pair for column in columns for pair in column.items()):
            largest[name] = max(count, largest.get(name, 0))
        if not largest:
            return ""
        lines = self._heading()
        for name in sorted(largest, key=lambda name: -largest[name]):
            if largest[name] > _LEAST_VERIFIED:
                cells = " | ".join(f"{column[name]:,}" if name in column else "" for column in columns)
                lines.append(f"| `{name}` | {cells} |")
        head = _VERIFIER_HEAD.format(least=_LEAST_VERIFIED, most=MOST_VERIFIED)
        return head + "\n".join(lines) + "\n"

    def _heading(self) -> list[str]:
        return [
            "| | " + " | ".join(run.label for run in self._runs) + " |",
            "|---" * (len(self._runs) + 1) + "|",
            "| bcc's version | " + " | ".join(run.bcc for run in self._runs) + " |",
        ]

    def _features(self) -> str:
        lines = self._heading()
        rows = self._rows()
        if not rows:
            return ""
        section = ""
        for key, (title, row) in rows.items():
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
            if item.path.name == VERIFIER_TEST:
                continue
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


def _verified(run: GuestRun) -> dict[str, int]:
    """What the verifier followed by program, with this run's way of attaching."""
    wanted = VERIFIED + (run.attach or "fentry")
    found: dict[str, int] = {}
    for report in (report for reports in run.reports.values() for report in reports):
        found |= next((value for name, value in report.user_properties if name == wanted), {})
    return found


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
