"""The other end of a remote capture: ``unixsock dump --control``.

stdin brings a request and then changes, as to the privileged helper (privilege/protocol.py), and
heartbeats: lengths of 0.  Its end means stop.  stdout takes blocks without a file's header, stderr reports.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import select
import signal
import threading
import time
from contextlib import suppress

from unixsock_bpf.capture import own_processes
from unixsock_bpf.capture.base import CaptureSource
from unixsock_bpf.capture.feedback import Feedback
from unixsock_bpf.capture.pipe import PipePump, PipeWriter, ReaderGone
from unixsock_bpf.capture.process_details import details_of
from unixsock_bpf.errors import ProbeError
from unixsock_bpf.filter import FilterError
from unixsock_bpf.linux.pid_namespace import identity
from unixsock_bpf.options import Settings
from unixsock_bpf.privilege.client import source
from unixsock_bpf.privilege.protocol import (
    HEAD,
    Request,
    RequestError,
    decode_request,
    encode_report,
    request_length,
)
from unixsock_bpf.timeouts import HEARTBEAT_TIMEOUT_S, REMOTE_EXIT_TIMEOUT_S, SILENT_EXIT_TIMEOUT_S
from unixsock_bpf.version import __version__

#: Between two looks at whether heartbeats still come.
_WAIT_S = 0.25


def report(kind: str, value: object) -> None:
    """Write one report to stderr."""
    with suppress(OSError):  # the other end is gone, which stdin shows
        os.write(2, encode_report(kind, value))


class _Input:
    """Reads stdin in a thread, so that its end is noticed whatever this process is busy with.

    Until ``attached`` is set, the end of stdin ends the process, and the kernel detaches.
    """

    def __init__(self) -> None:
        self.requests: queue.Queue[Request | RequestError | None] = queue.Queue()
        self.wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self.attached = False
        self._heartbeats = False
        self._exit_timeout_s = REMOTE_EXIT_TIMEOUT_S
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    def _read(self, size: int) -> bytes | None:
        """Read ``size`` bytes; None at the end of stdin, and where heartbeats no longer come.

        Silence is counted in waits, not by a clock: a machine that is too busy is not a broken connection.
        """
        data = b""
        silent_s = 0.0
        poll = select.poll()
        poll.register(0, select.POLLIN)
        while len(data) < size:
            if not poll.poll(_WAIT_S * 1000):
                silent_s += _WAIT_S
                if self._heartbeats and silent_s > HEARTBEAT_TIMEOUT_S:
                    self._exit_timeout_s = SILENT_EXIT_TIMEOUT_S
                    return None
                continue
            try:
                part = os.read(0, size - len(data))
            except BlockingIOError:
                continue
            except OSError:  # the terminal or connection is gone
                return None
            silent_s = 0.0
            if not part:
                return None
            data += part
        return data

    def _run(self) -> None:
        while (head := self._read(HEAD)) is not None:
            if not any(head):
                self._heartbeats = True
                continue
            try:
                body = self._read(request_length(head))
                if body is None:
                    break
                self._put(decode_request(body))
            except RequestError as error:
                self._put(error)
                break  # where the next request begins is unknown
        if not self.attached and self.requests.empty():
            if self._exit_timeout_s == SILENT_EXIT_TIMEOUT_S:
                report("error", "the connection was silent for too long before the capture began.")
            os._exit(1)
        self._put(None)
        time.sleep(self._exit_timeout_s)
        os._exit(1)  # detaching, or a pipe, takes too long

    def _put(self, request: Request | RequestError | None) -> None:
        self.requests.put(request)
        with suppress(OSError):
            os.write(self._waker, b"\0")


def serve(pids: str) -> int:
    """Capture for another host until stdin ends.  Return the exit status.

    ``pids``: the ``identity`` of the namespace that the request's pids are of.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    report("hello", __version__)
    incoming = _Input()
    request = incoming.requests.get()
    report("clock", time.time_ns())
    if not isinstance(request, Request):
        report("error", str(request or "The request was cut short: is standard input passed on?"))
        return 1
    # In a container, or on this very host: then what shows the capture there is seen here.
    same_pids = bool(pids) and pids == identity()
    capture = source(_of_this_host(request.settings, same_pids))
    try:
        with capture:
            return _capture(capture, incoming, request, same_pids)
    except ProbeError as error:
        report("error", str(error))
        return 1


def _of_this_host(settings: Settings, same_pids: bool) -> Settings:
    """Return settings with this host's cgroups and processes, not those of the host that asks."""
    if not same_pids:
        settings = dataclasses.replace(settings, capturers=())
    with suppress(FilterError):
        return dataclasses.replace(settings, filter=settings.filter.renewed())
    return settings


def _capture(capture: CaptureSource, incoming: _Input, request: Request, same_pids: bool) -> int:
    settings = request.settings
    if request.paused:
        capture.pause(True)
    os.set_blocking(1, False)
    feedback = None
    if not settings.include_capture_processes:
        feedback = Feedback(lambda: own_processes.find().readers, lambda text: report("left_out", text))
    pump = PipePump(capture, PipeWriter(1), settings.buffer_mib, feedback, details_of(settings))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, pump.stop)
    server = _Server(capture, incoming, request, pump, same_pids)
    capture.watch(incoming.wake, select.POLLIN, server.take)
    capture.each_second = server.report_losses
    incoming.attached = True
    report("hooks", {"proofs": capture.proofs, "unattached": capture.unattached})
    if names := ", ".join(capture.left_out):
        report("left_out", f"Messages of {names} are left out, because they carry or show this capture.")
    report("attached", capture.attached)
    try:
        statistics = pump.run()
    except ReaderGone:
        return 0
    report("ended", statistics.report())
    return 0


class _Server:
    """Makes the changes that are asked for, and reports losses."""

    def __init__(
        self, capture: CaptureSource, incoming: _Input, request: Request, pump: PipePump, same_pids: bool
    ) -> None:
        self._capture, self._incoming, self._request, self._pump = capture, incoming, request, pump
        self._same_pids = same_pids
        self._lost = 0

    def report_losses(self) -> None:
        lost = self._capture.statistics.lost
        if lost > self._lost:
            self._lost = lost
            report("lost", lost)

    def take(self, _events: int) -> None:
        os.read(self._incoming.wake, 4096)
        while True:
            try:
                wanted = self._incoming.requests.get_nowait()
            except queue.Empty:
                return
            if not isinstance(wanted, Request):
                if wanted is not None:
                    report("error", str(wanted))
                self._pump.stop()
                return
            self._change(wanted)

    def _change(self, wanted: Request) -> None:
        before, self._request = self._request, wanted
        if wanted.paused != before.paused:
            self._capture.pause(wanted.paused)
        if wanted.settings == before.settings:
            report("changed", "")
            return

        def done(problem: str) -> None:
            if problem:
                self._request = before
            report("changed", problem)

        self._capture.replace(_of_this_host(wanted.settings, self._same_pids), done)
