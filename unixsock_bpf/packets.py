"""Packets as Wireshark's dissectors see them: tshark's output, read by pyshark.

pyshark's own captures start tshark through asyncio, which ties it to one event loop and, before
Python 3.12, to whoever watches child processes.  Its parser needs neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from unixsock_bpf import tshark
from unixsock_bpf.message import MessagesError


def _parser() -> Any:
    try:
        from pyshark.tshark.output_parser.tshark_xml import TsharkXmlParser
    except ImportError:
        raise MessagesError("the Python package pyshark is missing: install it with pip") from None
    return TsharkXmlParser()


class Packets:
    """tshark at work.  Iterating gives pyshark's packets, each as soon as it is there."""

    def __init__(self, display_filter: str | None) -> None:
        """Raises MessagesError if something is missing here."""
        self._parser = _parser()
        if shutil.which("tshark") is None:
            raise MessagesError("tshark was not found: install tshark")
        try:
            self._command = ["tshark", "-l", "-n", "-T", "pdml", *tshark.dissector_arguments()]
        except tshark.TsharkError as error:
            raise MessagesError(str(error)) from None
        if display_filter is not None:
            self._command += ["-Y", display_filter]
        self._process: subprocess.Popen[bytes] | None = None
        self._said: list[str] = []
        self._listener = threading.Thread(target=self._listen, name="unixsock tshark", daemon=True)

    def start(self, path: str) -> int:
        """Starts it on a file; ``-`` is a pipe, whose end for writing is returned, the caller's to close."""
        self._process = subprocess.Popen(
            [*self._command, "-r", path],
            stdin=subprocess.PIPE if path == "-" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # a terminal's Ctrl-C is for the program, which may want the rest
        )
        self._listener.start()
        if self._process.stdin is None:
            return -1
        with self._process.stdin as pipe:
            return os.dup(pipe.fileno())

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._said += tshark.complaints(line.decode(errors="replace") for line in lines)

    async def read(self, size: int) -> bytes:
        """What pyshark's parser waits for.  It never has to: there is nothing else to do meanwhile."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def __iter__(self) -> Iterator[Any]:
        data = b""
        try:
            while True:
                step = self._parser.get_packets_from_stream(self, data)
                try:
                    step.send(None)
                except StopIteration as done:
                    packet, data = done.value
                if packet:
                    yield packet
        except EOFError:
            return

    def kill(self) -> None:
        """Ends it at once; what it has written can still be read."""
        if self._process:
            self._process.kill()

    def close(self) -> None:
        """Waits until it has ended, after the last packet or ``kill``.  Raises MessagesError if it failed."""
        if not self._process:
            return
        assert self._process.stdout is not None
        self._process.stdout.close()
        status = self._process.wait()
        self._listener.join()
        if status < 0:
            raise MessagesError(f"tshark was ended by signal {-status}")
        if status:
            raise MessagesError(" ".join(self._said) or f"tshark failed with status {status}")
