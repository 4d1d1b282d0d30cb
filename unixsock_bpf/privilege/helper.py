"""The privileged helper: read one request, attach one probe, then only drain the ring.

stdin brings the request; its end means stop.  stdout takes pcapng blocks, stderr reports (protocol.py).
``libexec/unixsock-capture`` has made sure that only root's code runs.

If the request announces changes, a second process, the loader, stays root to write other filters into their
map and to attach the hooks of events.  It reads stdin, and never what is captured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from unixsock_bpf.linux import sandbox
from unixsock_bpf.privilege import protocol
from unixsock_bpf.version import __version__

if TYPE_CHECKING:
    from unixsock_bpf.capture.session import Capture
    from unixsock_bpf.options import Settings
    from unixsock_bpf.privilege.protocol import Request

_IN, _OUT, _ERR = 0, 1, 2

#: Time for a caller to send its request, in seconds.
REQUEST_TIMEOUT_S = 60


def main(uid: int) -> NoReturn:
    """Capture for user ``uid``, then end the process: bcc must not clean up after itself in a sandbox."""
    status = 1
    try:
        status = _serve(uid)
    except protocol.RequestError as error:
        _report("error", str(error))
    except sandbox.SandboxError as error:
        _report("error", error.strerror or str(error))
    except Exception as error:  # no traceback: it would end up in a dialog
        _report("error", f"The privileged helper failed: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _report(kind: str, value: object) -> None:
    with contextlib.suppress(OSError):  # the client is gone
        os.write(_ERR, protocol.encode_report(kind, value))


def _serve(uid: int) -> int:
    from unixsock_bpf.capture.session import Capture
    from unixsock_bpf.errors import ProbeError
    from unixsock_bpf.probe import cache

    cache.writable = False
    # A terminal's keys are for the caller, which then closes stdin.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    sandbox.available()
    signal.alarm(REQUEST_TIMEOUT_S)  # to hear us, too: a caller may have filled the pipe of the reports
    _report("hello", __version__)
    wanted = _read_request()
    if wanted is None:
        raise protocol.RequestError("The request was cut short.")
    signal.alarm(0)
    # Until the probe is attached, a caller that goes away simply ends this process.
    _signal_on_input()
    capture = Capture(wanted.settings)
    try:
        capture.__enter__()
    except ProbeError as error:
        _report("error", str(error))
        return 1
    if wanted.paused:
        capture.pause(True)
    keep = _capabilities_to_read_maps(capture, uid)
    if wanted.changes:
        _become_loader_with_drainer(capture, wanted)
    _drain(capture, uid, keep, wanted.settings)
    return 0


def _read_request() -> Request | None:
    """Read the next request; None at the end of stdin.  Raises RequestError."""
    head = _read(protocol.HEAD)
    if not head:
        return None
    size = protocol.request_length(head)
    body = _read(size)
    if len(body) != size:
        raise protocol.RequestError("The request was cut short.")
    return protocol.decode_request(body)


def _read(size: int) -> bytes:
    """Read ``size`` bytes of stdin, or fewer at its end."""
    data = b""
    while len(data) < size:
        part = os.read(_IN, size - len(data))
        if not part:
            break
        data += part
    return data


def _signal_on_input() -> None:
    """Have the kernel send SIGIO when stdin ends, whatever this process is busy with."""
    fcntl.fcntl(_IN, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(_IN, fcntl.F_SETFL, fcntl.fcntl(_IN, fcntl.F_GETFL) | os.O_ASYNC)
    if _ended():  # before the kernel could send it
        os._exit(0)


def _ended() -> bool:
    poll = select.poll()
    poll.register(_IN, select.POLLIN)
    return bool(poll.poll(0))


def _capabilities_to_read_maps(capture: Capture, uid: int) -> list[int]:
    """Return the capabilities that reading an open map takes: none, or CAP_BPF.

    Since Linux commit c8644cd0efe7 (v5.19) holding its descriptor is enough.  Tried rather than looked up,
    because that was backported.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sandbox.give_up_privileges(uid)
            status = 0 if capture.maps_can_be_read else 1
        finally:
            os._exit(status)
    return [] if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 else [sandbox.CAP_BPF]


def _drain(capture: Capture, uid: int, keep: list[int], settings: Settings) -> None:
    """Copy what is captured to stdout until stdin ends or the reader is gone.  Gives up root."""
    from unixsock_bpf.capture.feedback import Feedback
    from unixsock_bpf.capture.pipe import PipePump, PipeWriter, ReaderGone

    os.set_blocking(_OUT, False)
    feedback = None
    if not settings.include_capture_processes:
        feedback = Feedback(lambda: set(settings.capturers), lambda text: _report("left_out", text))
    drain = PipePump(capture, PipeWriter(_OUT), settings.buffer_mib, feedback)
    signal.signal(signal.SIGIO, drain.stop)
    capture.watch(_IN, select.POLLIN, drain.stop)
    capture.each_second = _Losses(capture).report
    _release_programs(capture.countable)
    sandbox.enter(
        uid, {_IN, capture.wake, capture.jumps, capture.idle_time.fd}, {_OUT, _ERR, capture.waker}, keep
    )
    if capture.proofs or capture.unattached:
        _report("hooks", {"proofs": capture.proofs, "unattached": capture.unattached})
    _report("attached", capture.attached)
    try:
        statistics = drain.run()
    except ReaderGone:
        return
    _report("ended", statistics.report())


class _Losses:
    """Report losses when there are new ones."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._reported = 0

    def report(self) -> None:
        lost = self._capture.statistics.lost
        if lost > self._reported:
            self._reported = lost
            _report("lost", lost)


def _release_programs(counted: set[int]) -> None:
    """Close descriptors that only a loader needs, but not ``counted``: what they skipped is asked for."""
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that listed them
            continue
        if ("bpf-prog" in target and int(name) not in counted) or "btf" in target:
            os.close(int(name))


def _become_loader_with_drainer(capture: Capture, wanted: Request) -> None:
    """Fork: return in the child, whose stdin is a pipe from here; serve changes here until either ends."""
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        os.dup2(there, _IN)
        os.close(there)
        _signal_on_input()
        return
    os.close(there)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    os.close(_OUT)  # the loader must not see what is captured
    status = 1
    try:
        _serve_changes(capture, wanted, child)
        capture.detach_messages()
        os.close(here)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except Exception as error:
        _report("error", f"The privileged helper failed: {type(error).__name__}: {error}")
    finally:
        os._exit(max(status, 0))


def _serve_changes(capture: Capture, wanted: Request, drainer: int) -> None:
    """Make the changes that stdin asks for, until it or the drainer ends."""
    life = os.pidfd_open(drainer)
    poll = select.poll()
    poll.register(life, select.POLLIN)
    poll.register(_IN, select.POLLIN)
    while True:
        happened = dict(poll.poll())
        if life in happened:
            return
        try:
            following = _read_request()
            if following is None:
                return
            problem = _change(capture, wanted, following)
            wanted = following if not problem else wanted
        except protocol.RequestError as error:
            _report("error", str(error))
            return  # where the next request begins is unknown
        _report("changed", problem)


def _change(capture: Capture, before: Request, after: Request) -> str:
    """Change from ``before`` to ``after``; return why not, or an empty text."""
    wanted = dataclasses.replace(after.settings, capturers=before.settings.capturers)
    if wanted != before.settings and (problem := capture.replace_now(wanted)):
        return problem
    capture.pause(after.paused)
    return ""


if __name__ == "__main__":
    sys.exit("libexec/unixsock-capture starts this")
