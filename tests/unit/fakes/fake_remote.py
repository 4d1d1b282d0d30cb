"""Stands in for a way to another host: ``fake_remote.py unixsock dump … --control``.

By the environment: ``FAKE_RATE`` records a second, none by default; ``FAKE_COUNT`` of them, and then the
connection breaks.  ``FAKE_SAY``: what it prints on stderr instead of capturing; then it exits with
``FAKE_STATUS``.  ``FAKE_PIDS``: the file it writes its pids to; then it leaves out the processes it is sent.
``FAKE_SILENCE_S``: how long it does without heartbeats.
A change of the filter is a record of its own, and ``FAKE_REFUSE`` refuses it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from unixsock_bpf import record
from unixsock_bpf.capture.base import Statistics
from unixsock_bpf.capture.own_processes import shown
from unixsock_bpf.capture.poller import Poller
from unixsock_bpf.cli.main import main
from unixsock_bpf.formats import pcapng
from unixsock_bpf.options import Settings
from unixsock_bpf.record import Record
from unixsock_bpf.remote import server

NAME = os.environ.get("FAKE_NAME", "fake")
SOCK = int.from_bytes(NAME.encode()[:6], "little") << 8


class Source(Poller):
    """As unixsock_bpf.capture.session.Capture."""

    attached = "fentry"
    filling = writes_output = False

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.statistics = Statistics(lost_messages=int(os.environ.get("FAKE_LOST", "0")))
        self.left_out = shown(settings.capturers) if "FAKE_PIDS" in os.environ else []
        self.proofs: list[str] = []
        self.unattached: list[str] = []
        self._paused = False
        self._extra: list[bytes] = []
        self.number = 0

    def __enter__(self) -> Source:
        time.sleep(float(os.environ.get("FAKE_START", "0")))
        return self

    def __exit__(self, *_: object) -> None: ...

    def pause(self, paused: bool) -> None:
        self._paused = paused
        self._extra.append(self._record(b"paused" if paused else b"goes on"))

    def replace(self, settings: Settings, done: Callable[[str], None]) -> None:
        if why := os.environ.get("FAKE_REFUSE"):
            done(why)
            return
        self.settings = settings
        asked = [one for one in (b"a", b"b") if settings.filter.matches(Record(dst_name=b"/" + one))]
        self._extra.append(self._record(b"filter " + b" ".join(asked)))
        done("")

    def _record(self, payload: bytes) -> bytes:
        one = Record(
            src_sock=SOCK, dst_sock=SOCK + 1, type=2, message=self.number, len=len(payload), payload=payload
        )
        self.number += 1
        return pcapng.packet(time.time_ns(), record.encode(one))

    def blocks(self) -> Iterator[Sequence[bytes]]:
        rate, most = float(os.environ.get("FAKE_RATE", "0")), int(os.environ.get("FAKE_COUNT", "0"))
        yield [pcapng.names([(SOCK, f"{NAME}[5]")])]
        while not self._stopped:
            self._dispatch(self._poll.poll(1000 / rate if rate else 1000))
            batch, self._extra = self._extra, []
            if rate and not self._paused:
                batch.append(self._record(b"%s %d" % (NAME.encode(), self.number)))
            if batch:
                yield batch
            if most and self.number >= most:
                os.kill(os.getpid(), 9)
        yield [self._record(b"last")]
        self.statistics.messages = self.number


if __name__ == "__main__":
    if said := os.environ.get("FAKE_SAY"):
        sys.stderr.write(said + "\n")
        sys.exit(int(os.environ.get("FAKE_STATUS", "255")))
    if path := os.environ.get("FAKE_PID_FILE"):
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")
    # On a busy machine either end may have to wait for long.
    server.HEARTBEAT_TIMEOUT_S = float(os.environ.get("FAKE_SILENCE_S", "300"))
    server.REMOTE_EXIT_TIMEOUT_S = 300.0
    if pids := os.environ.get("FAKE_PIDS"):
        server.identity = lambda: pids
    server.source = Source  # type: ignore[assignment]
    server.__version__ = os.environ.get("FAKE_VERSION", server.__version__)
    arguments = sys.argv[sys.argv.index("unixsock") + 1 :]
    sys.exit(main(arguments))
