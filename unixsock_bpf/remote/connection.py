"""The connection to ``unixsock dump --control`` on another host: its process, blocks and reports."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from unixsock_bpf.capture.base import Statistics
from unixsock_bpf.capture.pipe import PIPE_SIZE
from unixsock_bpf.formats import pcapng
from unixsock_bpf.linux.pid_namespace import identity
from unixsock_bpf.linux.write import write_all
from unixsock_bpf.privilege.protocol import Reports, Request, encode_request
from unixsock_bpf.remote.way import Way, explain, start
from unixsock_bpf.timeouts import HEARTBEAT_S, REMOTE_EXIT_TIMEOUT_S
from unixsock_bpf.version import __version__

COMMAND = ("dump", "--format", "pcapng", "-w", "-", "--control")


class Connection:
    """One host of a capture.

    ``output``: a descriptor that its blocks go to directly.  Without it ``read_blocks`` returns them.
    ``number``: its interface in the capture.
    """

    def __init__(self, way: Way, number: int, output: int | None = None) -> None:
        self.way = way
        self.number = number
        self._output = output
        self._splitter = pcapng.Splitter()
        self._reports = Reports()
        self._problem = ""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        #: Whether the capture runs there.
        self.attached = ""
        self.unattached: list[str] = []
        self.statistics = Statistics()
        self.ended = False
        self.report: Callable[[str], None] = lambda _: None
        #: Called, oldest first, with why a change was not made, or an empty text.
        self.changes: deque[Callable[[str], None]] = deque()
        #: By how many nanoseconds its clock is ahead of ours, at most wrong by the second number.
        self.clock: tuple[int, int] | None = None
        self._asked = 0
        #: Blocks that wait to be merged: time, when they came, block.
        self.waiting: deque[tuple[int, float, bytes]] = deque()
        self._latest = 0
        self._packets = 0
        self.blocks_open = output is None
        self.reports_open = True
        self.has_statistics = False

    @property
    def blocks_from(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def reports_from(self) -> int:
        assert self._process is not None
        assert self._process.stderr is not None
        return self._process.stderr.fileno()

    def start(self, request: Request) -> None:
        """Start the command, and send the request.  Raises ProbeError if there is no such command."""
        output = subprocess.PIPE if self._output is None else self._output
        words = (*COMMAND, *filter(None, [identity()]))
        self._process = start(self.way, words, subprocess.PIPE, output)
        self.send(request)
        threading.Thread(target=self._heartbeats, name="heartbeats", daemon=True).start()

    def send(self, request: Request) -> None:
        """Send a request.  Raises RequestError if it is too long."""
        self._write(encode_request(request))

    def _write(self, message: bytes) -> None:
        assert self._process is not None
        with self._lock:
            pipe = self._process.stdin
            if pipe is not None and not pipe.closed:
                with suppress(OSError):  # it has ended; its reports have the reason
                    write_all(pipe.fileno(), message)

    def _heartbeats(self) -> None:
        """Show the other end that this one lives: a broken connection may look like a silent one there."""
        assert self._process is not None
        assert self._process.stdin is not None
        poll = select.poll()
        try:
            poll.register(self._process.stdin.fileno(), select.POLLOUT)
            while not self._process.stdin.closed and self._process.poll() is None:
                if poll.poll(0):
                    self._write(bytes(4))
                time.sleep(HEARTBEAT_S)
        except ValueError:  # closed meanwhile
            pass

    def read_reports(self) -> None:
        """Read what stderr has, and handle it."""
        data = os.read(self.reports_from, 65536)
        if not data:
            self.reports_open = False
        for kind, value in self._reports.feed(data):
            self._take(kind, value)

    def _take(self, kind: str, value: Any) -> None:
        if kind == "hello":
            self._asked = time.time_ns()
            if value != __version__:
                self._problem = (
                    f"unixsock on {self.way.name} is of version {value}, and this is {__version__}:"
                    " install the same on both."
                )
                self.stop()
        elif kind == "clock":
            now = time.time_ns()
            self.clock = int(value) - (self._asked + now) // 2, (now - self._asked) // 2
        elif kind == "hooks":
            self.unattached = list(value["unattached"])
        elif kind == "attached" and not self._problem:
            self.attached = str(value)
        elif kind == "left_out":
            self.report(f"{self.way.name}: {value}")
        elif kind == "lost":
            self.statistics.lost_messages = int(value)
        elif kind == "ended":
            self.statistics = Statistics.of_report(value)
            self.ended = True
        elif kind == "changed" and self.changes:
            self.changes.popleft()(str(value))
        elif kind == "error":
            self._problem = self._problem or f"On {self.way.name}: {value}"

    def read_blocks(self) -> None:
        """Read what stdout has, and add it to ``waiting``.  Raises ProbeError for what is no pcapng."""
        data = os.read(self.blocks_from, PIPE_SIZE)
        if not data:
            self.blocks_open = False
            return
        try:
            blocks = self._splitter.feed(data)
        except pcapng.PcapngError as error:
            self.blocks_open = False
            self._problem = f"What {self.way.name} sends is not pcapng: {error}."
            return
        now = time.monotonic()
        for block in blocks:
            kind = block[:4]
            if kind in _HEADERS:  # of a file; ours has its own
                self.attached = self.attached or "?"
                continue
            if pcapng.is_packet(block):
                self._packets += 1
                self._latest = max(self._latest, pcapng.time_of(block))
            elif pcapng.is_statistics(block):
                self.has_statistics = True
            self.waiting.append((self._latest, now, pcapng.of_interface(block, self.number)))

    def statistics_block(self, why: str) -> bytes:
        """Return the statistics of a host that did not send its own."""
        lost = self.statistics.lost
        return pcapng.statistics(time.time_ns(), self._packets + lost, lost, self.number, why)

    @property
    def open(self) -> bool:
        """Whether something may still come.

        ssh's shared connection keeps stderr open after the command has ended.
        """
        if self.blocks_open:
            return True
        if not self.reports_open:
            return False
        assert self._process is not None
        return self._process.poll() is None or bool(select.select([self.reports_from], [], [], 0)[0])

    @property
    def went_well(self) -> bool:
        """Whether it ended in order, which takes until its process has ended."""
        return not self._problem and (self.ended or (bool(self.attached) and self._status() == 0))

    def _status(self) -> int | None:
        """Return the command's exit status, whose pipes may be closed a moment before; None if it runs on."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(REMOTE_EXIT_TIMEOUT_S)
        return None

    def stop(self) -> None:
        """Have it end after everything captured so far."""
        if self._process is None:
            return
        with self._lock:
            if self._process.stdin and not self._process.stdin.closed:
                self._process.stdin.close()

    def why(self) -> str:
        """Return why it ended by itself, in a sentence."""
        if self._problem:
            return self._problem
        return explain(self.way, self._reports.lines, self._status())

    @property
    def clock_text(self) -> str:
        """Say how its clock stands to ours; empty if that is not known."""
        if self.clock is None:
            return ""
        ahead, uncertain = self.clock
        if abs(ahead) <= uncertain:
            return f"the clock of {self.way.name} is as ours, within {uncertain / 1e6:.1f} ms"
        side = "ahead of" if ahead > 0 else "behind"
        wrong = f"within {uncertain / 1e6:.1f} ms"
        return f"the clock of {self.way.name} is {abs(ahead) / 1e6:.1f} ms {side} ours, {wrong}"

    def close(self) -> None:
        """Close the pipes, which makes it end, and wait for that; then kill it."""
        if self._process is None:
            return
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        try:
            self._process.wait(REMOTE_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


_HEADERS = tuple(kind.to_bytes(4, "little") for kind in (pcapng.SHB, pcapng.IDB))
