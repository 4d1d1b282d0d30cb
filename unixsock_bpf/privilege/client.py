"""Capture through the privileged helper.

The helper belongs to root, so our signals don't reach it: it stops at the end of the pipe that it takes
requests from, also when this process is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from unixsock_bpf.capture.base import CaptureSource, Statistics
from unixsock_bpf.capture.cgroup_follower import CgroupFollower
from unixsock_bpf.capture.pipe import PIPE_SIZE, widen
from unixsock_bpf.capture.poller import Poller
from unixsock_bpf.capture.session import Capture
from unixsock_bpf.errors import ProbeError
from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.pcapng import Block
from unixsock_bpf.linux.write import write_all
from unixsock_bpf.privilege import launch
from unixsock_bpf.privilege.protocol import Reports, Request, RequestError, encode_request
from unixsock_bpf.timeouts import HELPER_EXIT_TIMEOUT_S
from unixsock_bpf.version import __version__

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings

_T = TypeVar("_T")


def _there(value: _T | None) -> _T:
    """Return ``value``, which is set once the helper has been started."""
    assert value is not None
    return value


def source(settings: Settings, output: int | None = None) -> CaptureSource:
    """Choose the capture for this user: in this process, or through the privileged helper.

    ``output``: the open fifo that blocks go to; the helper writes there itself, and ``blocks`` yields none.
    Without it all come from ``blocks``.
    """
    is_local = os.geteuid() == 0 or settings.privilege == "none"
    if settings.process_details:
        output = None  # the helper sees no /proc: records pass through this process
    capture = Capture(settings) if is_local else RemoteCapture(settings, output)
    capture.follow_cgroups = CgroupFollower(capture).look
    return capture


class RemoteCapture(Poller):
    """A capture by the privileged helper, with the methods of ``Capture``.

    Entering raises ProbeError if the helper refuses, or is not installed.
    """

    def __init__(self, settings: Settings, output: int | None = None) -> None:
        super().__init__()
        self.settings = settings
        self._output = output
        self._paused = False
        #: A filter's cgroups may change, too.
        self._may_change = bool(settings.control_in) or settings.filter.asks_for_cgroups
        self._process: subprocess.Popen[bytes] | None = None
        self._blocks_from: int | None = None
        self._splitter = pcapng.Splitter()
        self._reports = Reports()
        self._hello: str | None = None
        self._problem: str | None = None
        #: Called, oldest first, with why a change was not made, or an empty text.
        self._changes: list[Callable[[str], None]] = []
        #: The processes that are left out because they belong to the capture.
        self.left_out: Sequence[str] = []
        #: Called when a conversation is left out because it repeats what is captured.
        self.feedback_found: Callable[[str], None] = lambda _: None
        #: How the probe is attached: ``fentry`` or ``kprobe``.
        self.attached = ""
        self.proofs: list[str] = []
        self.unattached: list[str] = []
        self.filling = False
        self.writes_output = output is not None
        #: As reported by the helper: losses about once a second, everything at the end.
        self.statistics = Statistics()

    def __enter__(self) -> RemoteCapture:
        try:
            self._start()
            self._send()
            while not self.attached:
                if not self._read_reports():
                    raise ProbeError(self._why())
        except BaseException:
            self._close_helper()
            raise
        self._poll.register(self._reports_from, select.POLLIN)
        if self._blocks_from is not None:
            self._poll.register(self._blocks_from, select.POLLIN)
        return self

    def try_to_start(self) -> None:
        """Check that this user may start the privileged helper.  Raises ProbeError if not."""
        try:
            self._start()
            self._close_helper()
        finally:
            self._close()

    def _start(self) -> None:
        """Start the helper in the first way that is permitted.  Raises ProbeError."""
        if not launch.HELPER.exists():
            raise ProbeError(launch.not_installed())
        ways = launch.commands(self.settings.privilege)
        if not ways:
            raise ProbeError(launch.not_there(self.settings.privilege))
        refusals = []
        for name, command in ways.items():
            self._launch(command)
            while self._hello is None and self._read_reports():
                pass
            if self._hello == __version__:
                return
            if self._hello is not None:
                raise ProbeError(
                    f"The privileged helper is of version {self._hello}, and this is {__version__}: "
                    "run 'sudo unixsock install --system' again."
                )
            if self._problem:  # it ran, and refused itself
                raise ProbeError(self._problem)
            refusals.append(f"{name} said: {self._reports.last_line.rstrip('.') or 'nothing'}")
            self._close_helper()
        raise ProbeError(launch.not_permitted(refusals))

    def _launch(self, command: list[str]) -> None:
        self._reports = Reports()
        output = self._output
        if output is None:
            self._blocks_from, output = os.pipe2(os.O_CLOEXEC)
            widen(output)
        try:
            self._process = launch.launch(command, output)
        finally:
            if output != self._output:
                os.close(output)

    @property
    def _reports_from(self) -> int:
        return _there(_there(self._process).stderr).fileno()

    def _send(self) -> None:
        """Send a request for the settings.  Raises ProbeError if it is too long."""
        from unixsock_bpf.capture.own_processes import capture_processes, shown

        # On the other end of a remote capture, those of the end that asks are in the settings.
        left_out = capture_processes() | set(self.settings.capturers)
        if not self.settings.include_capture_processes:
            self.left_out = shown(left_out)
        settings = dataclasses.replace(self.settings, capturers=tuple(left_out))
        try:
            message = encode_request(Request(settings, self._paused, self._may_change))
        except RequestError as error:
            raise ProbeError(str(error)) from None
        requests = _there(_there(self._process).stdin)
        with contextlib.suppress(BrokenPipeError):  # its reports have the reason
            write_all(requests.fileno(), message)

    def _read_reports(self) -> bool:
        """Wait for reports and handle them.  Return False at their end."""
        data = os.read(self._reports_from, 65536)
        for kind, value in self._reports.feed(data):
            self._take_report(kind, value)
        return bool(data)

    def _take_report(self, kind: str, value: Any) -> None:
        if kind == "hello":
            self._hello = str(value)
        elif kind == "hooks":
            self.proofs, self.unattached = list(value["proofs"]), list(value["unattached"])
        elif kind == "attached":
            self.attached = str(value)
        elif kind == "left_out":
            self.feedback_found(str(value))
        elif kind == "lost":
            self.statistics.lost_messages = int(value)
        elif kind == "ended":
            self.statistics = Statistics.of_report(value)
        elif kind == "changed" and self._changes:
            self._changes.pop(0)(str(value))
        elif kind == "error":
            self._problem = str(value)

    def _why(self) -> str:
        """Return why the helper ended."""
        line = self._reports.last_line
        return self._problem or line or "The privileged helper was ended by someone else."

    def _close_helper(self) -> None:
        """Close the pipes to the helper, which makes it end, and wait for it."""
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stderr):
            if pipe:
                pipe.close()
        if self._blocks_from is not None:
            os.close(self._blocks_from)
            self._blocks_from = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(HELPER_EXIT_TIMEOUT_S)

    def __exit__(self, *_: object) -> None:
        self._close_helper()
        self._close()

    def pause(self, paused: bool) -> None:
        """As Capture.pause."""
        self._paused = paused
        self._changes.append(lambda _: None)
        self._send()

    def replace(self, settings: Settings, done: Callable[[str], None]) -> None:
        """As Capture.replace."""
        before, self.settings = self.settings, settings

        def answered(problem: str) -> None:
            if problem:
                self.settings = before
            done(problem)

        self._changes.append(answered)
        self._send()

    def blocks(self) -> Iterator[Sequence[Block]]:
        """As Capture.blocks; only wait if the helper writes to the output itself.

        Raises ProbeError if the helper ends by itself.
        """
        reports_from = self._reports_from
        open_ends = {reports_from} | ({self._blocks_from} if self._blocks_from is not None else set())
        asked_to_stop = False
        while open_ends:
            if self._stopped and not asked_to_stop:
                self._stop_helper()
                asked_to_stop = True
            for fd in self._dispatch(self._poll.poll(1000)):
                if fd == self._blocks_from:
                    if data := os.read(fd, PIPE_SIZE):
                        yield self._split(data)
                    else:
                        open_ends.discard(fd)
                        self._poll.unregister(fd)
                elif fd == reports_from and not self._read_reports():
                    open_ends.discard(fd)
                    self._poll.unregister(fd)
        if _there(self._process).wait() != 0:
            raise ProbeError(self._why())

    def _stop_helper(self) -> None:
        """Close the helper's stdin, and watch nothing but its output from now on."""
        self.unwatch_all()
        _there(_there(self._process).stdin).close()

    def _split(self, data: bytes) -> list[Block]:
        """Return the blocks that ``data`` completes, without the statistics.  Raises ProbeError."""
        try:
            return [block for block in self._splitter.feed(data) if not pcapng.is_statistics(block)]
        except pcapng.PcapngError as error:
            raise ProbeError(f"The privileged helper does not write pcapng: {error}.") from None
