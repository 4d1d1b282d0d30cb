"""However a live capture ends for a program, nothing of it is left: no process, thread, descriptor or file.

``unixsock dump`` has a source of the tests' own here (fake_dump.py); all else is real.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from patience import soon

import unixsock_bpf
from unixsock_bpf.api import sources
from unixsock_bpf.api.message import Message, MessagesError

HERE = Path(__file__).parent
#: Seconds within which everything has to be gone.
SOON = 5.0


def fake_command(arguments: list[str]) -> list[str]:
    return [
        sys.executable,
        str(HERE.parent / "fakes" / "fake_dump.py"),
        "dump",
        "--format",
        "pcapng",
        *arguments,
    ]


class Traces:
    """What a capture leaves: processes that inherited a mark, threads, descriptors, temporary files."""

    def __init__(self, mark: str, folder: Path) -> None:
        self._mark, self._folder = f"UNIXSOCK_MARK={mark}".encode(), folder
        self._fds = len(os.listdir("/proc/self/fd"))

    def processes(self) -> dict[int, str]:
        """The processes with the mark, but this one, by pid."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                marked = self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if marked and int(pid) != os.getpid():
                    found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
        return found

    def all(self) -> list[str]:
        """Everything that is there now."""
        gc.collect()
        return [
            *self.processes().values(),
            *(thread.name for thread in threading.enumerate() if thread.name.startswith("unixsock")),
            *(str(path) for path in self._folder.rglob("*")),
            *(["descriptors"] if len(os.listdir("/proc/self/fd")) > self._fds else []),
        ]

    def end(self) -> None:
        """Fails if there are any after a while."""
        deadline = time.monotonic() + soon(SOON)
        while (left := self.all()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    mark = uuid.uuid4().hex
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("UNIXSOCK_MARK", mark)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("UNIXSOCK_FAKE", "200")
    monkeypatch.setattr(sources, "dump_command", fake_command)
    unixsock_bpf.live()  # whatever is imported is
    found = Traces(mark, folder)
    yield found
    for pid in found.processes():
        os.kill(pid, signal.SIGKILL)


def some(messages: unixsock_bpf.Messages) -> list[bytes]:
    """The first three payloads, as a loop that is left early."""
    found: list[bytes] = []
    for one in messages:
        found.append(one.payload)
        if len(found) == 3:
            break
    return found


def test_a_loop_that_is_left(traces: Traces) -> None:
    assert some(unixsock_bpf.live()) == [b"0", b"1", b"2"]
    traces.end()


def test_a_loop_that_is_left_and_goes_on(traces: Traces) -> None:
    messages = unixsock_bpf.live()
    assert some(messages) == [b"0", b"1", b"2"]
    assert {"tshark", "fake_dump"} <= {
        word for line in traces.processes().values() for word in ("tshark", "fake_dump") if word in line
    }
    assert some(messages) == [b"3", b"4", b"5"]
    del messages
    traces.end()


def test_an_error_in_the_loop(traces: Traces) -> None:
    def fail() -> None:
        for one in unixsock_bpf.live():
            raise ValueError(one.payload)

    with pytest.raises(ValueError, match="0"):
        fail()
    traces.end()


def test_a_generator_that_is_closed(traces: Traces) -> None:
    def payloads() -> Iterator[bytes]:
        yield from (one.payload for one in unixsock_bpf.live())

    generator = payloads()
    assert next(generator) == b"0"
    generator.close()
    traces.end()


def test_garbage_in_a_circle(traces: Traces) -> None:
    holder: dict[str, object] = {"messages": unixsock_bpf.live()}
    holder["self"] = holder
    assert isinstance(holder["messages"], unixsock_bpf.Messages)
    next(holder["messages"])
    del holder
    traces.end()


def test_with_that_is_left(traces: Traces) -> None:
    with unixsock_bpf.live() as messages:
        next(messages)
    assert traces.processes() == {}
    assert list(messages) == []
    traces.end()


def test_never_asked(traces: Traces) -> None:
    unixsock_bpf.live().close()
    traces.end()


def test_a_bounded_capture_loses_nothing(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIXSOCK_FAKE", "100000")
    found = list(unixsock_bpf.live(count=300))
    assert [one.payload for one in found] == [b"%d" % number for number in range(300)]
    traces.end()


def test_stop_delivers_the_rest(traces: Traces) -> None:
    messages = unixsock_bpf.live()
    found = [next(messages)]
    messages.stop()
    found += list(messages)
    assert [one.payload for one in found] == [b"%d" % number for number in range(len(found))]
    traces.end()


def test_an_async_loop_that_is_left(traces: Traces) -> None:
    async def first() -> Message:
        async for one in unixsock_bpf.live():
            return one
        raise AssertionError

    assert asyncio.run(first()).payload == b"0"
    traces.end()


def test_async_with(traces: Traces) -> None:
    async def two() -> list[bytes]:
        async with unixsock_bpf.live() as messages:
            return [(await messages.__anext__()).payload for _ in range(2)]

    assert asyncio.run(two()) == [b"0", b"1"]
    traces.end()


def test_waiting_in_vain_ends_and_takes_nothing_along(
    traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives up waiting for a message is free at once, and does not swallow the one that comes later."""
    monkeypatch.setenv("UNIXSOCK_FAKE", "1")

    async def impatient() -> list[bytes]:
        messages = unixsock_bpf.live()
        found: list[bytes] = []
        while len(found) < 3:
            try:
                found.append((await asyncio.wait_for(messages.__anext__(), 0.3)).payload)
            except asyncio.TimeoutError:
                continue
        return found

    assert asyncio.run(impatient()) == [b"0", b"1", b"2"]
    traces.end()


def test_a_silent_capture_holds_no_event_loop(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIXSOCK_FAKE", "0")

    async def wait() -> None:
        async with unixsock_bpf.live() as messages:
            await asyncio.wait_for(messages.__anext__(), 0.5)

    began = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(wait())
    assert time.monotonic() - began < soon(SOON)
    traces.end()


def test_given_up_while_it_starts(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIXSOCK_FAKE_START", "60")

    async def impatient() -> None:
        async def enter() -> None:
            async with unixsock_bpf.live():
                pass

        await asyncio.wait_for(enter(), 1)

    began = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(impatient())
    assert time.monotonic() - began < soon(SOON + 1)
    traces.end()


def test_closed_by_another_thread(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIXSOCK_FAKE", "0")
    messages = unixsock_bpf.live()
    threading.Timer(1.0, messages.close).start()
    assert list(messages) == []
    traces.end()


def test_closed_before_the_capture_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(sources, "dump_command", lambda _: command)
    started = threading.Event()

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(*arguments, **options)
        started.set()
        return process

    monkeypatch.setattr(sources, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": popen}))
    messages = unixsock_bpf.live()

    def close() -> None:
        started.wait()
        messages.close()

    threading.Thread(target=close).start()
    assert list(messages) == []


def kill(traces: Traces, name: str) -> None:
    for pid, line in traces.processes().items():
        if name in line.partition(" -r ")[0].partition("--format")[0]:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("name", "said"), [("tshark", "tshark was"), ("fake_dump", "the capture was")])
def test_a_part_that_is_killed_is_told(traces: Traces, name: str, said: str) -> None:
    messages = unixsock_bpf.live()
    next(messages)
    kill(traces, name)
    with pytest.raises(MessagesError, match=f"{said} ended by signal 9"):
        list(messages)
    assert list(messages) == []
    traces.end()


def test_a_bad_display_filter_ends_the_capture(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIXSOCK_FAKE", "0")
    with pytest.raises(MessagesError, match="filter"):
        list(unixsock_bpf.live(display_filter="nonsense =="))
    traces.end()


def test_a_refused_capture(traces: Traces) -> None:
    with pytest.raises(MessagesError, match="--snaplen needs a number"):
        list(unixsock_bpf.live(snaplen="x"))
    traces.end()


def test_records_that_no_display_filter_takes_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_KEPT", 1000)
    live = sources.Live([])
    for number in range(1, 101):
        live._keep(number, 0, bytes(100))
    assert [number for number, _, _ in live._records] == list(range(91, 101))


PROGRAM = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import test_api_shutdown, unixsock_bpf
unixsock_bpf.api.sources.dump_command = test_api_shutdown.fake_command
messages = unixsock_bpf.live()
print(next(messages).payload.decode(), flush=True)
"""


def program(after: str) -> subprocess.Popen[str]:
    """A program that has got a message, and then does ``after``."""
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + after], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout
    assert running.stdout.readline() == "0\n"
    return running


@pytest.mark.parametrize(
    ("after", "end", "status"),
    [
        ("", lambda _: None, 0),
        ("sys.exit(3)", lambda _: None, 3),
        ("1 / 0", lambda _: None, 1),
        ("import os; os._exit(4)", lambda _: None, 4),
        ("list(messages)", lambda one: one.kill(), -signal.SIGKILL),
        ("list(messages)", lambda one: one.terminate(), -signal.SIGTERM),
        ("list(messages)", lambda one: one.send_signal(signal.SIGINT), -signal.SIGINT),
    ],
    ids=["end", "exit", "error", "_exit", "kill", "terminate", "interrupt"],
)
def test_a_program_that_ends(
    traces: Traces, after: str, end: Callable[[subprocess.Popen[str]], None], status: int
) -> None:
    running = program(after)
    end(running)
    running.communicate(timeout=soon(SOON))
    assert running.returncode == status
    traces.end()
