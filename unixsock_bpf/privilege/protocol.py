"""Requests to the privileged helper, and its reports.  No I/O happens here.

A request is a length and a JSON object.  Nothing in it is text that is compiled, executed or opened: the
filter comes as a tree (filter/serialize.py), all else as numbers and truth values within limits.

A report is a line on stderr, a JSON object with one member.  Lines before the first, ``hello``, are those
of sudo or pkexec.

========== ===================================================================
hello      the helper's version: it runs, and waits for the request
hooks      ``proofs``: what the self-test saw; ``unattached``: what is unknown without which hook
attached   ``fentry`` or ``kprobe``: the capture runs, and root's rights are gone
lost       how many messages were lost so far
left_out   a conversation that is left out from here on because it repeats what is captured, or no longer
clock      another host's time when it read the request, in nanoseconds since the epoch
changed    empty, or why a change was not made
ended      messages and losses in all, ``events`` if some were lost, and ``unknown`` if hooks may have missed
           more: all is written
error      the sentence that says why there is no capture
========== ===================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from unixsock_bpf.filter import Filter, FilterError
from unixsock_bpf.filter.primitives import is_number
from unixsock_bpf.filter.serialize import from_plain, to_plain
from unixsock_bpf.options import BY_NAME, Settings
from unixsock_bpf.version import __version__

#: Bytes of the length that begins a request, big-endian.
HEAD = 4
#: The longest request, in bytes without its head.
MAX_REQUEST = 1 << 20
#: The most processes of the capture itself that can be named.
MAX_PIDS = 1024
_MAX_PID = 1 << 22

_NUMBERS = {
    "snaplen": (0, BY_NAME["snaplen"].high),
    "buffer_mib": (BY_NAME["buffer-size"].low, BY_NAME["buffer-size"].high),
}
_FLAGS = (
    *("events", "include_capture_processes", "process_details", "process_blocks"),
    *("paused", "changes"),
)


_REPORTS = ("hello", "hooks", "attached", "lost", "left_out", "changed", "ended", "error", "clock")
#: The longest line that is kept where there is no report.
_MAX_LINE = 65_536
#: The last so many lines are kept.
_MAX_LINES = 100


class RequestError(ValueError):
    """A request that can't be granted; the text says why."""


@dataclass(frozen=True)
class Request:
    """A request for a capture.

    ``paused``: capture nothing for now.  ``changes``: other requests may follow.
    """

    settings: Settings
    paused: bool = False
    changes: bool = False


def encode_request(request: Request) -> bytes:
    """Encode a request, with its head.  Raises RequestError if it is too long."""
    settings = request.settings
    body = json.dumps(
        {
            "version": __version__,
            "filter": to_plain(settings.filter.root),
            "snaplen": settings.snaplen,
            "buffer_mib": settings.buffer_mib,
            "events": settings.events,
            "include_capture_processes": settings.include_capture_processes,
            "process_details": settings.process_details,
            "process_blocks": settings.process_blocks,
            "pids": sorted(settings.capturers)[:MAX_PIDS],
            "paused": request.paused,
            "changes": request.changes,
        },
        separators=(",", ":"),
    ).encode()
    if len(body) > MAX_REQUEST:
        raise RequestError(f"The filter is too large: {len(body)} bytes, and {MAX_REQUEST} are possible.")
    return len(body).to_bytes(HEAD, "big") + body


def request_length(head: bytes) -> int:
    """Return how many bytes follow a request's head.  Raises RequestError."""
    if len(head) != HEAD:
        raise RequestError("The request was cut short.")
    size = int.from_bytes(head, "big")
    if not 2 <= size <= MAX_REQUEST:
        raise RequestError(f"The request has {size} bytes; 2 to {MAX_REQUEST} are possible.")
    return size


def decode_request(body: bytes) -> Request:
    """Decode the request in ``body``, which may hold anything.  Raises RequestError."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("The request is not JSON.") from None
    if not isinstance(asked, dict):
        raise RequestError("The request is not a JSON object.")
    version = asked.get("version")
    if version != __version__:
        raise RequestError(
            f"The privileged helper is version {__version__}, and what asks is another: "
            "run 'sudo unixsock install --system' again."
        )
    if set(asked) != {"version", "filter", "pids", *_NUMBERS, *_FLAGS}:
        raise RequestError("The request lacks something, or has something that does not belong there.")
    for name, (low, high) in _NUMBERS.items():
        if not is_number(asked[name], low, high):
            raise RequestError(f"The request's {name} is not a number from {low} to {high}.")
    for name in _FLAGS:
        if not isinstance(asked[name], bool):
            raise RequestError(f"The request's {name} is neither true nor false.")
    return Request(
        Settings(
            filter=_filter(asked["filter"]),
            snaplen=asked["snaplen"],
            buffer_mib=asked["buffer_mib"],
            events=asked["events"],
            include_capture_processes=asked["include_capture_processes"],
            process_details=asked["process_details"],
            process_blocks=asked["process_blocks"],
            capturers=_pids(asked["pids"]),
        ),
        asked["paused"],
        asked["changes"],
    )


def _filter(plain: Any) -> Filter:
    try:
        return Filter("", from_plain(plain))
    except (FilterError, RecursionError) as error:
        raise RequestError(f"The request's filter is refused: {error}.") from None


def _pids(asked: Any) -> tuple[int, ...]:
    if not isinstance(asked, list) or len(asked) > MAX_PIDS:
        raise RequestError(f"The request does not name at most {MAX_PIDS} processes.")
    if not all(is_number(pid, 1, _MAX_PID) for pid in asked):
        raise RequestError("The request names a process that can't be one.")
    return tuple(asked)


def encode_report(kind: str, value: Any) -> bytes:
    """Encode one report."""
    return json.dumps({kind: value}).encode() + b"\n"


class Reports:
    """Split what comes from a pipe into reports and other lines."""

    def __init__(self) -> None:
        self._rest = b""
        #: Lines that are no report: what sudo printed, or a crash.
        self.other_lines: list[str] = []

    def feed(self, data: bytes) -> list[tuple[str, Any]]:
        """Return kind and value of each report that ``data`` completes, however the pipe cuts them."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            lines, self._rest = [*lines, self._rest], b""
        return [report for report in map(self._report, lines) if report]

    def _report(self, line: bytes) -> tuple[str, Any] | None:
        try:
            members = json.loads(line)
            if isinstance(members, dict) and len(members) == 1:
                ((kind, value),) = members.items()
                if kind in _REPORTS:
                    return kind, value
        except ValueError:
            pass
        if line.strip():
            self.other_lines.append(" ".join(line.decode(errors="replace").split()))
            del self.other_lines[:-_MAX_LINES]
        return None

    @property
    def last_line(self) -> str:
        """The last line that is no report."""
        return self.lines[-1] if self.lines else ""

    @property
    def lines(self) -> list[str]:
        """The lines that are no report, with one that has not ended yet."""
        unfinished = " ".join(self._rest.decode(errors="replace").split())
        return [*self.other_lines, *([unfinished] if unfinished else [])]
