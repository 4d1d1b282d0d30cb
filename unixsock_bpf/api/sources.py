"""Sources of messages: a saved capture, or ``unixsock dump``.

A source gives tshark a descriptor to read, and the records themselves by frame number.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from unixsock_bpf import record
from unixsock_bpf.api.message import MessagesError
from unixsock_bpf.formats import pcapng, reader
from unixsock_bpf.linux import interpreter
from unixsock_bpf.linux.write import write_all
from unixsock_bpf.timeouts import DUMP_EXIT_TIMEOUT_S

#: Bytes of records that are kept for packets that tshark may still show.  What it has read and not
#: shown yet is far less: two pipes and its own buffers.
_KEPT = 64 << 20
#: Bytes that are read from the capture at a time.
_CHUNK = 1 << 16


class File:
    """A saved capture."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._records: Iterator[reader.Saved] = iter(())

    def start(self) -> None:
        """Open the file's records.  Raises MessagesError if there is no such file."""
        if not Path(self._path).is_file():
            raise MessagesError(f"cannot read {self._path}: there is no such file")
        self._records = reader.read(self._path)

    def open(self) -> int:
        """Return a descriptor of the file for tshark to read.  Raises MessagesError."""
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MessagesError(f"cannot read {self._path}: {(error.strerror or '').lower()}") from None

    def stop(self) -> None:
        """Do nothing: a file ends by itself."""

    kill = stop

    def close(self) -> None:
        """Close the file."""
        self._records = iter(())

    def record(self, number: int) -> reader.Saved | None:
        """Return the record of a frame; ask for frames in order."""
        try:
            for one in self._records:
                if one.number == number:
                    return one
                if one.number > number:
                    raise MessagesError(f"frame {number} of {self._path} is not of a Unix socket")
        except (OSError, reader.SavedError) as error:
            raise MessagesError(f"cannot use {self._path}: {error}") from None
        return None

    def check(self) -> None:
        """Read the records that tshark left out.  Raises MessagesError if that is not possible."""
        try:
            for _ in self._records:
                pass
        except (OSError, reader.SavedError) as error:
            raise MessagesError(f"cannot use {self._path}: {error}") from None


def dump_command(arguments: list[str]) -> list[str]:
    """Return the command that captures, and writes pcapng to its standard output."""
    return interpreter.command("unixsock_bpf.cli.main", "dump", "--format", "pcapng", *arguments)


class Live:
    """``unixsock dump`` in a process of its own, read by this program and by tshark."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        #: Frame number, time in ns, and bytes of each record that no packet was shown for yet.
        self._records: deque[tuple[int, int, bytes]] = deque()
        self._kept = 0
        self._stderr_lines: list[str] = []
        self._ready = threading.Event()
        self._closed = False

    def start(self) -> None:
        """Start it, and return once the probe is attached.  Raises MessagesError if it cannot be."""
        self._process = subprocess.Popen(
            dump_command(self._arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if self._closed:  # before there was anything to end
            self._process.kill()
        threading.Thread(target=self._listen, name="unixsock dump", daemon=True).start()
        self._ready.wait()
        if self._process.poll() not in (None, 0) and not self._closed:
            raise MessagesError(self._complaint())

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._stderr_lines.append(line.decode(errors="replace").strip())
                if self._stderr_lines[-1].startswith("unixsock: capturing "):
                    self._ready.set()
        self._process.wait()
        self._ready.set()

    def _complaint(self) -> str:
        """Return why the process has ended."""
        assert self._process is not None
        if self._process.returncode < 0:
            return f"the capture was ended by signal {-self._process.returncode}"
        lines = [
            line.removeprefix("unixsock: ")
            for line in self._stderr_lines
            if line.startswith("unixsock: ") and not line.startswith("unixsock: capturing ")
        ]
        return (lines or self._stderr_lines or ["the capture ended with an error"])[-1]

    def open(self) -> int:
        """Return a pipe for tshark to read, which is written to from now on."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=self._feed, args=[writer], name="unixsock feed", daemon=True).start()
        return reader

    def _feed(self, pipe: int) -> None:
        """Copy blocks from the capture to tshark, and keep each record for ``record``."""
        assert self._process is not None
        assert isinstance(self._process.stdout, BufferedReader)
        stdout, splitter, number = self._process.stdout, pcapng.Splitter(), 0
        try:
            while data := stdout.read1(_CHUNK):
                for block in splitter.feed(data):
                    if pcapng.is_packet(block):
                        number += 1
                        packet = pcapng.packet_of(block)
                        self._keep(number, packet.time_ns, packet.data)
                    write_all(pipe, block)
        except (OSError, pcapng.PcapngError):
            pass  # tshark is gone, which its reader notices
        finally:
            os.close(pipe)
            stdout.close()  # which ends the capture

    def _keep(self, number: int, time_ns: int, data: bytes) -> None:
        self._records.append((number, time_ns, data))
        self._kept += len(data)
        while self._kept > _KEPT and len(self._records) > 1:  # a display filter took none of them
            self._forget()

    def _forget(self) -> tuple[int, int, bytes]:
        oldest = self._records.popleft()
        self._kept -= len(oldest[2])
        return oldest

    def record(self, number: int) -> reader.Saved | None:
        """Return the record of a frame; ask for frames in order."""
        while self._records:
            found, time_ns, data = self._forget()
            if found == number:
                try:
                    return reader.Saved(number, time_ns, record.decode(data))
                except record.RecordError as error:
                    raise MessagesError(f"record {number} cannot be used: {error}") from None
        return None

    def stop(self) -> None:
        """Interrupt the capture, as Ctrl-C does."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the capture's process if nothing can have been captured yet, else stop it."""
        self._closed = True
        if self._process and not self._ready.is_set():
            self._process.kill()
        self.stop()

    def close(self) -> None:
        """Wait for the capture's process, which was stopped, or whose reader is gone."""
        if self._process:
            try:
                self._process.wait(DUMP_EXIT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def check(self) -> None:
        """Raise MessagesError if the capture failed."""
        assert self._process is not None
        if self._process.wait() != 0:
            raise MessagesError(self._complaint())
