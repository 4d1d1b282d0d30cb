"""The pytest plugin outside of guests: runs the tests under tests/kernel in guests.

Each of them becomes one item per kernel and way of attaching, so that pytest's summary
counts what really ran.  A kernel is booted once for all its items; pytest runs in there
too, and its reports are shown here in the order of the items.  The first guests run
while the tests before them run here, and each that ends makes room for the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vm import guest, kernels, rootfs
from vm.debian import CHECKOUT, SetupError
from vm.table import Table

_TESTS = CHECKOUT / "tests" / "kernel"

#: Seconds without any report after which a guest is given up.
_PATIENCE = 1500

#: Guests that run at a time: an emulated one keeps little more than one core busy.
_AT_ONCE = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("guests")
    group.addoption(
        "--kernels", default="", metavar="SUITES", help="run tests/kernel with these releases' kernels"
    )
    group.addoption("--attach", default="", metavar="WAYS", help="fentry,kprobe: force each in turn")
    group.addoption(
        "--brief",
        action="store_true",
        help="run each file of what is marked thorough on one kernel only, and outside guests not at all",
    )
    group.addoption(
        "--own-root", action="store_true", help="with each kernel's own user land, where Python is new enough"
    )
    group.addoption(
        "--windows",
        default="",
        metavar="SUITES",
        help="run test_gui.py also with these releases' kernels and their own user lands, so their Wireshark",
    )
    group.addoption(
        "--one-thread", action="store_true", help="emulate guests' processors in turn: see vm.guest.boot"
    )
    group.addoption(
        "--kernel-table", metavar="FILE", help="write what works on which kernel to FILE (Markdown)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rows: each variant has a row of its own in docs/kernels.md")
    config.addinivalue_line("markers", "headers: the kernel's headers lie beside it in .cache/kernels")
    config.addinivalue_line("markers", "thorough: takes long, and tells little that is special to a kernel")
    if config.getoption("--kernels") or config.getoption("--windows"):
        config.pluginmanager.register(Guests(config))


class GuestRun:
    """One boot: a kernel, a way of attaching, and the tests that are to run there.

    ``windows``: with the kernel's own user land, for test_gui.py alone.
    """

    def __init__(self, config: pytest.Config, suite: str, attach: str, windows: bool = False) -> None:
        self._config = config
        self.suite = suite
        self.attach = attach
        self.windows = windows
        known = kernels.SUITES[suite]
        words = (known.series, known.words, attach, "windows" if windows else "")
        self.label = " ".join(filter(None, words))
        self.bcc = ""
        self.items: list[GuestItem] = []
        self.reports: dict[str, list[pytest.TestReport]] = {}
        self._stack = contextlib.ExitStack()
        self._guest: guest.Guest | None = None
        self._problem = ""
        self._read = 0

    @property
    def started(self) -> bool:
        """Whether booting has been tried."""
        return bool(self._guest or self._problem)

    def running(self) -> bool:
        return self._guest is not None and self._guest.running()

    def start(self) -> None:
        """Boot."""
        try:
            kernel = kernels.fetch(self.suite)
            self.label = " ".join(filter(None, (kernel.label, self.attach)))
            # bullseye's Python is too old for this project.
            own_root = self._config.getoption("--own-root") or self.windows
            own_root = own_root and kernel.suite.user_land not in ("bullseye", "bookworm")
            own_root = own_root or kernel.suite.foreign
            root = rootfs.build_for(kernel) if own_root else None
            if any(item.original.get_closest_marker("headers") for item in self.items):
                kernels.headers(kernel)
            self.bcc = rootfs.bcc_version(root)
            # Another release's Python takes pytest from Debian, ours from .venv.
            python = "/usr/bin/python3" if root else str(CHECKOUT / ".venv/bin/python")
            command = (
                f'export GUEST_REPORTS="$RESULTS/reports" PYTHONPATH={CHECKOUT}:{CHECKOUT}/tests\n'
                f'{python} -m pytest -p vm.reporter -p no:cacheprovider @"$RESULTS/tests"'
            )
            env = {"UNIXSOCK_ATTACH": self.attach} if self.attach else {}
            if "UNIXSOCK_LONG" in os.environ:
                env["UNIXSOCK_LONG"] = os.environ["UNIXSOCK_LONG"]
            files = {"tests": "".join(f"{item.original.nodeid}\n" for item in self.items)}
            self._guest = self._stack.enter_context(
                guest.boot(
                    kernel,
                    command,
                    root=root,
                    env=env,
                    files=files,
                    one_thread=self._config.getoption("--one-thread"),
                )
            )
        except SetupError as problem:
            self._problem = str(problem)

    def finished(self, nodeid: str, meanwhile: Callable[[], None]) -> str:
        """Wait until ``nodeid`` is through in the guest, calling ``meanwhile`` now and then.

        The result says why it is not through, else is empty.
        """
        quiet_since = time.monotonic()
        while not self._problem:
            assert self._guest
            running = self._guest.running()
            if self._take():
                quiet_since = time.monotonic()
            if any(report.when == "teardown" for report in self.reports.get(nodeid, [])):
                return ""
            if not running:
                self._problem = f"the guest ended without a result of this test\n{self._last_words()}"
            elif time.monotonic() - quiet_since > _PATIENCE:
                self._problem = f"the guest said nothing for {_PATIENCE} s\n{self._last_words()}"
            else:
                meanwhile()
                time.sleep(0.1)
        return self._problem

    def _take(self) -> bool:
        """Read the reports that are new.  True if there were any."""
        assert self._guest
        file = self._guest.results / "reports"
        if not file.exists():
            return False
        with file.open() as lines:
            lines.seek(self._read)
            text = lines.read()
        whole = text[: text.rfind("\n") + 1]
        self._read += len(whole.encode())
        for line in whole.splitlines():
            report = self._config.hook.pytest_report_from_serializable(
                config=self._config, data=json.loads(line)
            )
            if isinstance(report.longrepr, list):
                report.longrepr = tuple(report.longrepr)  # of a skipped test; JSON has no tuples
            self.reports.setdefault(report.nodeid, []).append(report)
        return bool(whole)

    def _last_words(self) -> str:
        assert self._guest
        output = self._guest.output
        said = output.read_text(errors="replace") if output.exists() else ""
        return f"{said[-6000:]}\nIts console:\n{self._guest.console()[-3000:]}"

    def stop(self) -> None:
        self._stack.close()


class GuestItem(pytest.Item):
    """``original``, to be run in the guest of ``run``."""

    def __init__(self, *, original: pytest.Item, run: GuestRun, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.original = original
        self.guest_run = run

    def runtest(self) -> None:
        """Never called: its guest ran it."""
        raise AssertionError("this test runs in a guest")

    def reportinfo(self) -> tuple[Path, int | None, str]:
        path, line, _ = self.original.reportinfo()
        return Path(path), line, self.name


class Guests:
    """Puts GuestItems in the place of the tests under tests/kernel, and runs them."""

    def __init__(self, config: pytest.Config) -> None:
        ways = config.getoption("--attach").split(",")
        suites = list(filter(None, config.getoption("--kernels").split(",")))
        windows = list(filter(None, config.getoption("--windows").split(",")))
        unknown = [suite for suite in [*suites, *windows] if suite not in kernels.SUITES]
        if unknown:
            raise pytest.UsageError(f"--kernels knows {', '.join(kernels.SUITES)}, not {', '.join(unknown)}")
        self._config = config
        self._runs = [GuestRun(config, suite, way) for suite in suites for way in ways]
        self._runs += [GuestRun(config, suite, "", windows=True) for suite in windows]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        here = [item for item in items if _TESTS not in item.path.parents]
        there = [item for item in items if _TESTS in item.path.parents]
        brief = self._config.getoption("--brief")
        if brief:
            thorough = [item for item in here if item.get_closest_marker("thorough")]
            here = [item for item in here if item not in thorough]
            self._config.hook.pytest_deselected(items=thorough)
        # Files with thorough tests take turns, so that no guest has them all.
        files = dict.fromkeys(item.path for item in there if item.get_closest_marker("thorough"))
        runs = [run for run in self._runs if not run.windows]
        only = {path: runs[number % len(runs)] for number, path in enumerate(files) if brief and runs}
        for run in self._runs:
            for item in there:
                assert item.parent
                if run.windows and item.path.name != "test_gui.py":
                    continue
                if (
                    not run.windows
                    and item.get_closest_marker("thorough")
                    and run is not only.get(item.path, run)
                ):
                    continue
                name = f"{item.name}[{run.label}]"
                run.items.append(GuestItem.from_parent(item.parent, name=name, original=item, run=run))
        items[:] = here + [item for run in self._runs for item in run.items]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        self._start_some()
        if not isinstance(item, GuestItem):
            return None
        run = item.guest_run
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        problem = run.finished(item.original.nodeid, self._start_some)
        reports = run.reports.get(item.original.nodeid, [])
        if problem:
            reports = [_failure(item, problem)]
        for report in reports:
            report.nodeid, report.location = item.nodeid, item.location
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if item is run.items[-1]:
            run.stop()
        return True

    def _start_some(self) -> None:
        """Boot the guests that are due, as many as may run at a time."""
        for run in self._runs:
            if run.started or not run.items:
                continue
            if sum(other.running() for other in self._runs) >= _AT_ONCE:
                return
            with self._terminal():
                run.start()

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[None]:
        """Show the user the messages of the boot."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            yield

    def pytest_sessionfinish(self) -> None:
        for run in self._runs:
            run.stop()
        file = self._config.getoption("--kernel-table")
        if file:
            table = Table(self._runs)
            table.write(Path(file))
            self._table = table

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._config.getoption("--kernel-table"):
            terminalreporter.section("what works on which kernel")
            terminalreporter.write_line(self._table.markdown())


def _failure(item: pytest.Item, problem: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=problem,
        when="call",
    )
