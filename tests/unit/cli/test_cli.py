"""The command line: arguments, and ``dump`` with a source of the test's own."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from unixsock_bpf import record
from unixsock_bpf.capture.base import Statistics
from unixsock_bpf.cli import dump
from unixsock_bpf.cli.arguments import chosen_settings, filter_text
from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.cli.main import main, parse
from unixsock_bpf.cli.output import Output
from unixsock_bpf.extcap.main import main as extcap
from unixsock_bpf.formats import pcapng, reader
from unixsock_bpf.record import Record


class Fake:
    """A source with the interface of Capture, which says what it is given."""

    def __init__(self, *batches: Sequence[bytes], lost: int = 0) -> None:
        self.batches = batches
        self.statistics = Statistics(lost_messages=lost)
        self.left_out = ["sudo[5]"]
        self.unattached: list[str] = []
        self.stopped = False

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None: ...

    def blocks(self) -> Iterator[Sequence[bytes]]:
        for batch in self.batches:
            if self.stopped:
                return
            yield batch

    def stop(self) -> None:
        self.stopped = True

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None: ...


def block(number: int, payload: bytes) -> bytes:
    one = Record(src_sock=1, dst_sock=2, type=2, message=number, len=len(payload), payload=payload)
    return pcapng.packet(1_000_000_000 + number, record.encode(one))


BATCHES = [
    [pcapng.names([(1, "curl[5]")]), block(0, b"zero"), block(1, b"one")],
    [block(2, b"two"), pcapng.names([(2, "x")]), block(3, b"three")],
]


def run(source: Fake, *words: str) -> int:
    return dump.run(parse(["dump", *words]), lambda _: source)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ""),
        (["/run/x"], "/run/x"),
        (["*"], "path *"),
        (["*/docker.sock", "and", "pid", "3"], "path */docker.sock and pid 3"),
        (["@x"], "@x"),
        (["path", "/run/my sock"], "path /run/my\\ sock"),
        (["pid 3 and (comm x or comm y)"], "pid 3 and (comm x or comm y)"),
    ],
)
def test_filter_words(words: list[str], expected: str) -> None:
    assert filter_text(words) == expected


def test_options_and_filter_may_be_mixed() -> None:
    arguments = parse(["dump", "/run/x", "--pid", "7", "and", "type", "dgram", "-c", "3", "--events"])
    settings = chosen_settings(arguments)
    assert arguments.count == 3
    assert settings.events
    assert settings.filter.matches(Record(src_pid=7, type=2, dst_name=b"/run/x"))
    assert not settings.filter.matches(Record(src_pid=8, type=2, dst_name=b"/run/x"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dump", "/x", "and", "pod", "3"], "At position 8"),
        (["dump", "--nonsense"], "--nonsense"),
        (["dump", "-c", "0"], "'0' is not a number from 1"),
        (["dump", "-a", "filesize:3"], "duration:SECONDS"),
        (["dump", "-a", "duration:nan"], "duration:SECONDS"),
        (["dump", "--snaplen", "x"], "--snaplen needs a number"),
        (["dump", "--uid", "no-such-user"], "no-such-user"),
        (["dump", "\udcff"], "not UTF-8"),
        (["dump", "--pid", ""], "--pid has no value"),
        (["sockets", "--path="], "--path has no value"),
        (["export"], "required"),
        (["sockets", "path"], "position"),
        ([], "required"),
        (["nonsense"], "nonsense"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(
    words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("unixsock: ")
    assert said in err


def test_the_offending_word_is_marked(capfd: pytest.CaptureFixture[str]) -> None:
    main(["dump", "/x", "and", "pod", "3"])
    lines = capfd.readouterr().err.splitlines()
    assert lines[1].index("pod") == lines[2].index("^")


def test_pcapng_is_the_blocks_as_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    assert run(Fake(*BATCHES, lost=7), "-w", str(path)) == 0
    assert [one.record.payload for one in reader.read(str(path))] == [b"zero", b"one", b"two", b"three"]
    data = path.read_bytes()
    assert b"".join(BATCHES[0] + BATCHES[1]) in data
    kind, body = list(pcapng.blocks(data))[-1]
    assert kind == pcapng.ISB
    assert (7).to_bytes(8, "little") in bytes(body)
    assert path.stat().st_mode & 0o777 == 0o600
    said = capfd.readouterr().err.splitlines()
    assert said[-1] == "4 records captured, 7 lost; messages of sudo[5] left out"
    assert b"messages of sudo[5] left out" in bytes(body)


def test_pcap_has_the_same_packets(tmp_path: Path) -> None:
    path = tmp_path / "a"
    run(Fake(*BATCHES), "--format", "pcap", "-w", str(path))
    found = list(reader.read(str(path)))
    assert [(one.time_ns, one.record.payload) for one in found] == [
        (1_000_000_000 + number, payload)
        for number, payload in enumerate((b"zero", b"one", b"two", b"three"))
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_count_is_exact(count: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    run(Fake(*BATCHES), "-c", str(count), "-w", str(path))
    assert len(list(reader.read(str(path)))) == count


def test_json_is_an_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    run(Fake(*BATCHES), "--format", "json")
    lines = capfd.readouterr().out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["zero", "one", "two", "three"]


def test_closes_are_shown_only_if_asked_for(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    close = pcapng.packet(5, record.encode(Record(event=record.Event.CLOSE, src_sock=1, dst_sock=2)))
    batch = [block(0, b"zero"), close, block(1, b"one")]
    run(Fake(batch), "--format", "json", "-c", "2")
    assert [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()] == ["data", "data"]
    run(Fake(batch), "--format", "json", "--events")
    assert [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()] == [
        "data",
        "close",
        "data",
    ]
    run(Fake(batch), "-w", str(tmp_path / "a"))
    assert len(list(reader.read(str(tmp_path / "a")))) == 3


def test_plain_to_a_pipe_and_coloured_if_asked(capfd: pytest.CaptureFixture[str]) -> None:
    run(Fake(*BATCHES))
    assert "\x1b" not in capfd.readouterr().out
    run(Fake(*BATCHES), "--colour", "always")
    assert "\x1b[36m" in capfd.readouterr().out


def test_a_failed_start_leaves_an_old_file_alone(tmp_path: Path) -> None:
    from unixsock_bpf.errors import ProbeError

    class Refused(Fake):
        def __enter__(self) -> Fake:
            raise ProbeError("Not here.")

    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(Failure, match="Not here"):
        run(Refused(), "-w", str(path))
    assert path.read_bytes() == b"old"


def test_an_old_file_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o644)
    run(Fake(*BATCHES), "-w", str(path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_takes_the_last_piece_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system writes 10 bytes, then nothing more."""
    output = Output(str(tmp_path / "a"))
    written = []

    def short(fd: int, pieces: Sequence[bytes]) -> int:
        if written:
            raise OSError(28, "full")
        written.append(os.write(fd, b"".join(pieces)[:10]))
        return written[0]

    monkeypatch.setattr(os, "writev", short)
    with pytest.raises(Failure, match="no space left on device"):
        output.write([b"abcd", b"efgh", b"ijkl"])
    assert (tmp_path / "a").read_bytes() == b"abcdefgh"


@pytest.mark.parametrize(("path", "said"), [("/dev/full", "no space left"), ("/no/such/x", "no such file")])
def test_what_cannot_be_written_is_told(path: str, said: str) -> None:
    with pytest.raises(Failure, match=said):
        run(Fake(*BATCHES), "-w", path)


def test_a_closed_pipe_ends_quietly() -> None:
    """``unixsock --help | true``, with a reader that is gone for sure."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "unixsock_bpf", "sockets"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""


def test_without_command_and_help() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert isinstance(parse(["check"]), argparse.Namespace)


def test_sockets_json_names_both_ends() -> None:
    import socket

    here, there = socket.socketpair()
    with here, there:
        inode = os.fstat(here.fileno()).st_ino
        done = subprocess.run(
            [sys.executable, "-m", "unixsock_bpf", "sockets", "inode", str(inode), "--json"],
            capture_output=True,
            check=True,
        )
        shown = {one["inode"]: one for one in json.loads(done.stdout)}
        assert shown[inode]["peer"]["inode"] == os.fstat(there.fileno()).st_ino
        assert shown[inode]["processes"][0]["pid"] == os.getpid()
        assert shown[inode]["type"] == "stream"


def test_the_table_is_harmless_and_aligned() -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(b"\0\x1b[2Junixsock\n")
        done = subprocess.run(
            [sys.executable, "-m", "unixsock_bpf", "sockets"], capture_output=True, check=True
        )
    assert b"\x1b" not in done.stdout
    row = next(line for line in done.stdout.decode().splitlines() if "unixsock" in line)
    assert re.search(r"@\\x1b\[2Junixsock\\n", row)


def test_a_file_or_link_that_others_put_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SUDO_UID", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.write_text("old")
    ours.write_text("old")
    ours.chmod(0o644)
    (tmp_path / "our-link").symlink_to(ours)
    (tmp_path / "their-link").symlink_to(ours)
    os.chown(theirs, 4711, 4711)
    os.chown(tmp_path / "their-link", 4711, 4711, follow_symlinks=False)
    with pytest.raises(Failure, match="theirs: it belongs to user 4711, who could read the capture"):
        Output(str(theirs))
    with pytest.raises(Failure, match="their-link: it is a link that user 4711 made"):
        Output(str(tmp_path / "their-link"))
    assert (theirs.read_text(), ours.read_text()) == ("old", "old")
    Output(str(tmp_path / "our-link")).close()
    assert (ours.read_text(), ours.stat().st_mode & 0o777) == ("", 0o600)
    monkeypatch.setenv("SUDO_UID", "4711")
    Output(str(theirs)).close()
    assert theirs.read_text() == ""


def test_a_missing_python_package_is_told_in_one_sentence() -> None:
    without = "import sys; sys.modules['lark'] = None; from unixsock_bpf.cli.main import main; "
    run = without + "main(['sockets', '/x'])"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert re.fullmatch(
        r"unixsock: the Python package lark is missing: install python3-lark .*\n", done.stderr
    )


def test_no_argument_reaches_a_terminal_as_it_is(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    nasty = "\x1b[2J\x9b31m\u202e\udcff"
    calls: list[tuple[Callable[[Sequence[str]], int], list[str]]] = [
        (main, ["dump", f"--{nasty}"]),
        (main, ["dump", nasty]),
        (main, ["export", f"/nonexistent/{nasty}"]),
        (main, ["dump", "-w", f"/nonexistent/{nasty}"]),
        (extcap, [f"--{nasty}"]),
        (extcap, ["--extcap-interface", nasty, "--extcap-dlts"]),
        (extcap, ["--capture", f"--fifo=/nonexistent/{nasty}", f"--extcap-interface={nasty}"]),
    ]
    for call, arguments in calls:
        assert call(arguments) != 0
        said = capfdbinary.readouterr().err
        assert said, arguments
        assert re.search(rb"[^ -~\n]", said) is None, said
