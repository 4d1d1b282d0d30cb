"""Packets as Wireshark's dissectors see them: tshark's output, read by pyshark.

pyshark's own captures start tshark through asyncio, which ties it to one event loop and, before
Python 3.12, to whoever watches child processes.  Its parser needs neither.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from unixsock_bpf.api.message import MessagesError
from unixsock_bpf.wireshark import tshark


def _parser() -> Any:
    try:
        from pyshark.tshark.output_parser.tshark_xml import TsharkXmlParser
    except ImportError:
        raise MessagesError("the Python package pyshark is missing: install it with pip") from None
    return TsharkXmlParser()


class Packets:
    """tshark at work.  Iterating gives pyshark's packets, each as soon as it is there."""

    def __init__(self, display_filter: str | None) -> None:
        """Check that tshark and pyshark are installed.  Raises MessagesError."""
        self._parser = _parser()
        try:
            tshark.available()
        except tshark.TsharkError as error:
            raise MessagesError(str(error)) from None
        self._filter = [] if display_filter is None else ["-Y", display_filter]
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr_lines: list[str] = []
        self._listener = threading.Thread(target=self._listen, name="unixsock tshark", daemon=True)

    def start(self, stdin: int) -> None:
        """Start tshark on ``stdin``, which is closed here.  Raises MessagesError."""
        try:
            self._process = tshark.start(["-l", "-T", "pdml", *self._filter, "-r", "-"], stdin)
        except tshark.TsharkError as error:
            raise MessagesError(str(error)) from None
        finally:
            os.close(stdin)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._stderr_lines += tshark.complaints(line.decode(errors="replace") for line in lines)

    async def read(self, size: int) -> bytes:
        """Wait as pyshark's parser asks.  It never has to: there is nothing else to do meanwhile."""
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
        """Kill tshark; what it has written can still be read."""
        if self._process:
            self._process.kill()

    def close(self) -> None:
        """Wait until tshark has ended.  Raises MessagesError if it failed."""
        if not self._process:
            return
        assert self._process.stdout is not None
        self._process.stdout.close()
        status = self._process.wait()
        self._listener.join()
        if status < 0:
            raise MessagesError(f"tshark was ended by signal {-status}")
        if status:
            raise MessagesError(" ".join(self._stderr_lines) or f"tshark failed with status {status}")
