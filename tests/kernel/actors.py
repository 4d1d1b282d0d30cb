"""Processes that do what a test tells them, step by step."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

_LOOP = """
import array, os, socket, sys, threading
for line in sys.stdin:
    answer = ""
    exec(eval(line), globals())
    print(answer, flush=True)
"""


class Actor:
    """A Python process called ``comm``; ``prefix`` is a command that starts it, such as unshare."""

    def __init__(self, comm: str, *prefix: str, pass_fds: tuple[int, ...] = ()) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )
        self.comm = comm.encode()
        #: As the mounted /proc numbers it, which is the initial namespace's.
        self.pid = int(
            self.do(f"open('/proc/self/comm', 'w').write({comm!r}); answer = os.readlink('/proc/self')")
        )

    def do(self, code: str) -> str:
        """Runs ``code`` there until it is through.  Its variables stay; ``answer`` is returned."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(repr(code) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{self.comm.decode()} ended"
        return line.rstrip("\n")

    def become(self, code: str) -> None:
        """Runs ``code`` that gives the process to another program, and waits for its end."""
        assert self._process.stdin
        self._process.stdin.write(repr(code) + "\n")
        self._process.stdin.close()
        self._process.wait(30)

    def __enter__(self) -> Actor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
