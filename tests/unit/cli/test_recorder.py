"""``unixsock record``: what is kept, when it is forgotten, and how it gets into a file."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from patience import soon

from unixsock_bpf import record
from unixsock_bpf.capture.base import Statistics
from unixsock_bpf.capture.poller import Poller
from unixsock_bpf.cli import record as recorder
from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.cli.main import main, parse
from unixsock_bpf.formats import pcapng
from unixsock_bpf.options import Settings
from unixsock_bpf.record import Event, Record


class Source(Poller):
    """A capture that yields what ``put`` was given."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics = Statistics(lost_messages=2)
        self._batches: list[Sequence[bytes]] = []

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None: ...

    def put(self, *blocks: bytes) -> None:
        self._batches.append(blocks)
        self.wake_up()

    def blocks(self) -> Iterator[Sequence[bytes]]:
        while not self._stopped:
            while self._batches:
                yield self._batches.pop(0)
            self._dispatch(self._poll.poll(1000))


def block(number: int, payload: bytes = b"x", event: int = Event.DATA) -> bytes:
    one = Record(
        event=event, src_sock=1, dst_sock=2, type=2, message=number, len=len(payload), payload=payload
    )
    return pcapng.packet(number, record.encode(one))


NAMES = pcapng.names([(1, "curl[5]"), (2, "dockerd[7]"), (3, "other[9]")])


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Source]]:
    """Start a recorder in a thread."""
    monkeypatch.setenv("UNIXSOCK_RECORD_SOCKET", str(tmp_path / "door"))
    started: list[tuple[Source, threading.Thread]] = []

    def start(*words: str) -> Source:
        source = Source()
        thread = threading.Thread(
            target=recorder.run,
            args=[parse(["record", "--include-capture-processes", *words]), lambda _: source],
        )
        thread.start()
        started.append((source, thread))
        until((tmp_path / "door").exists)
        return source

    yield start
    for source, thread in started:
        source.stop()
        thread.join(soon(60))
        assert not thread.is_alive()
    assert not (tmp_path / "door").exists()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + soon(60)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def numbers(path: Path) -> list[int]:
    return [record.decode(one.data).message for one in pcapng.packets(path.read_bytes())]


def test_save_writes_what_is_kept_with_its_names(
    running: Callable[..., Source], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, path = running(), tmp_path / "a.pcapng"
    source.put(NAMES, *(block(number) for number in range(3000)))
    source.put(block(3000))
    until(lambda: main(["record", "--save", str(path)]) == 0 and numbers(path) == list(range(3001)))
    assert path.stat().st_mode & 0o777 == 0o600
    blocks = pcapng.Splitter().feed(path.read_bytes())
    assert [one for each in blocks for one in pcapng.names_of(each)] == [(1, "curl[5]"), (2, "dockerd[7]")]
    assert pcapng.is_statistics(blocks[-1])
    assert "3001 records saved" in capfd.readouterr().err
    with pytest.raises(Failure, match="a recorder runs already"):
        recorder.run(parse(["record"]), lambda _: Source())
    assert (tmp_path / "door").stat().st_mode & 0o777 == 0o600


def test_old_records_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now)

    def kept(memory: recorder.Memory) -> list[int]:
        return [packet.time_ns for packet in pcapng.packets(b"".join(memory.snapshot(0)))]

    by_age = recorder.Memory(10, 1 << 20, Settings())
    for number in range(5):
        by_age.add([block(number)])
        now += 4
    assert kept(by_age) == [3, 4]
    now += 100
    assert kept(by_age) == []
    by_size = recorder.Memory(0, 10 * len(block(0)), Settings())
    by_size.add([block(number) for number in range(100)])
    assert kept(by_size) == list(range(90, 100))


def test_triggers_write_once_in_a_while(running: Callable[..., Source], tmp_path: Path) -> None:
    source = running("-w", str(tmp_path / "t.pcapng"), "--trigger", "text:boom", "--trigger", "error")
    source.put(NAMES, block(0), block(1, b"HTTP/1.1 200 OK\r\n"))
    source.put(block(2, b"it went boom"))
    source.put(block(3, b"boom again"))
    until(lambda: list(tmp_path.glob("t_00001_*.pcapng")))
    (path,) = tmp_path.glob("t_*.pcapng")
    until(lambda: numbers(path) == [0, 1, 2])
    until(
        lambda: main(["record", "--save", str(tmp_path / "all")]) == 0 and len(numbers(tmp_path / "all")) == 4
    )
    assert len(list(tmp_path.glob("t_*.pcapng"))) == 1


@pytest.mark.parametrize(
    ("word", "payload", "hit"),
    [
        ("error", b"HTTP/1.1 503 Service Unavailable\r\n", True),
        ("error", b"HTTP/1.1 204 No Content\r\n", False),
        ("error", b"-ERR unknown command\r\n", True),
        ("error", b'{"jsonrpc":"2.0","error":{"code":-32601}}', True),
        ("error", b'{"error":null}', False),
        ("error", b"l\3\1\1", True),
        ("error", b"l\2\1\1", False),
        ("text:a\xe9", "aé".encode(), True),
        ("send-error", b"", False),
    ],
)
def test_what_a_trigger_sees(word: str, payload: bytes, hit: bool) -> None:
    assert recorder._trigger(word)(block(0, payload)) == hit
    assert recorder._trigger("send-error")(block(0, b"", Event.SEND_ERROR))
    assert recorder._trigger("refused")(block(0, b"", Event.REFUSED))


def test_a_signal_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIXSOCK_RECORD_SOCKET", str(tmp_path / "door"))
    source = Source()
    source.put(block(7))

    def ask() -> None:
        until(lambda: signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, None))
        until(lambda: not source._batches)
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: list(tmp_path.glob("s_00001_*")))
        source.stop()

    before = signal.getsignal(signal.SIGUSR1)
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        words = ["record", "--include-capture-processes", "-w", str(tmp_path / "s.pcapng")]
        assert recorder.run(parse(words), lambda _: source) == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
        thread.join()
    (path,) = tmp_path.glob("s_*")
    assert numbers(path) == [7]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--keep", "packets:3"], "'packets:3' is not duration:SECONDS or filesize:MIB"),
        (["--keep", "duration:nan"], "'duration:nan' is not"),
        (["--trigger", "error"], "give -w FILE"),
        (["--trigger", "odd", "-w", "x"], "'odd' is not refused, send-error, error or text:TEXT"),
        (["--save", "x"], "no recorder answers at"),
    ],
)
def test_what_makes_no_sense(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIXSOCK_RECORD_SOCKET", str(tmp_path / "door"))
    with pytest.raises(Failure, match=said):
        recorder.run(parse(["record", *words]), lambda _: Source())
