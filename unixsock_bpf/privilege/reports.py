"""What the privileged part tells on stderr: a JSON object with one member in each line.

Before the first, ``hello``, it is sudo or pkexec that speaks.  No I/O happens here.

========== ===================================================================
hello      its version: it runs, and waits for the request
hooks      ``proofs``: what the probe's test of itself saw; ``unattached``: what is unknown without which hook
attached   ``fentry`` or ``kprobe``: the capture runs, and root's rights are gone
lost       how many messages were lost so far
changed    empty, or why a change was not made
ended      messages and losses in all, and ``unknown`` if the hooks may have missed more: all is written
error      the sentence that says why there is no capture
========== ===================================================================
"""

from __future__ import annotations

import json
from typing import Any

_KINDS = ("hello", "hooks", "attached", "lost", "changed", "ended", "error")
#: The longest line that is kept of someone who does not speak this language.
_MAX_LINE = 65_536


def encode(kind: str, value: Any) -> bytes:
    """One report."""
    return json.dumps({kind: value}).encode() + b"\n"


class Reports:
    """Reports from a pipe, however it cuts them; other lines are ``said``."""

    def __init__(self) -> None:
        self._rest = b""
        #: What was no report: sudo's words, or a crash's.
        self.said: list[str] = []

    def feed(self, data: bytes) -> list[tuple[str, Any]]:
        """Kind and value of each report that ``data`` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            lines, self._rest = [*lines, self._rest], b""
        return [report for report in map(self._report, lines) if report]

    def _report(self, line: bytes) -> tuple[str, Any] | None:
        try:
            members = json.loads(line)
            if isinstance(members, dict) and len(members) == 1:
                ((kind, value),) = members.items()
                if kind in _KINDS:
                    return kind, value
        except ValueError:
            pass
        if line.strip():
            self.said.append(" ".join(line.decode(errors="replace").split()))
        return None

    @property
    def last_words(self) -> str:
        """The last line that was no report."""
        unfinished = " ".join(self._rest.decode(errors="replace").split())
        return unfinished or (self.said[-1] if self.said else "")
