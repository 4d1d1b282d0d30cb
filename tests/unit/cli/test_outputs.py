"""Outputs that are closed, full, slow or somebody else's: one sentence, and nothing goes astray."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.cli.output import Output

CHECKOUT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "unixsock_bpf"]
EXTCAP = [str(CHECKOUT / "extcap/unixsock")]
CALLS = [
    [*COMMAND, "sockets"],
    [*COMMAND, "sockets", "--json"],
    [*COMMAND, "check", "--filter", "comm x"],
    [*COMMAND, "--help"],
    [*COMMAND, "--version"],
    [*EXTCAP, "--extcap-interfaces", "--extcap-version=4.0"],
    [*EXTCAP, "--extcap-config", "--extcap-interface", "unixsock"],
    [*EXTCAP],
]


def shell(call: list[str], redirection: str, folder: Path = CHECKOUT) -> subprocess.CompletedProcess[bytes]:
    words = " ".join(f"'{word}'" for word in call)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        ["sh", "-c", f"{words} {redirection}"],
        capture_output=True, check=False, cwd=folder, timeout=120, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call[1:]))
@pytest.mark.parametrize(("redirection", "why"), [(">/dev/full", b"no space left"), (">&-", b"it is closed")])
def test_an_output_that_takes_nothing_is_one_sentence(call: list[str], redirection: str, why: bytes) -> None:
    done = shell(call, redirection)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert b"cannot write standard output: " + why in done.stderr


@pytest.mark.parametrize(
    "call", [*CALLS, [*COMMAND, "dump", "--nonsense"]], ids=lambda call: " ".join(call[1:])
)
def test_a_closed_pipe_and_no_stderr_are_nothing_to_tell(call: list[str]) -> None:
    """The reader has gone before anything is written."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(call, stdout=write, stderr=subprocess.PIPE, check=False, cwd=CHECKOUT)
    os.close(write)
    refused = call[-1] == "--nonsense"
    assert done.returncode == (2 if refused else 0)
    assert b"Traceback" not in done.stderr
    assert shell(call, ">/dev/null 2>&-").returncode == done.returncode or "check" in call


def test_a_capture_is_not_written_over_while_it_is_read(tmp_path: Path) -> None:
    from dissector.captures import conversation, write

    capture = write(tmp_path / "a.pcapng", conversation(b"/run/x", [(True, b"x" * 30_000)] * 100))
    before = capture.read_bytes()
    log = tmp_path / "log"
    log.write_text('77 write(3<UNIX-STREAM:[5->6]>, "\\x61", 1) = 1\n')
    (tmp_path / "link").symlink_to(capture)
    for call, redirection in (
        (["export", "a.pcapng", "--format", "tcp", "-w", "./a.pcapng"], ""),
        (["export", "link", "-w", "a.pcapng"], ""),
        (["export", "a.pcapng", "-w", "link"], ""),
        (["export", "a.pcapng"], ">>a.pcapng"),
        (["import", "log", "-w", "log"], ""),
    ):
        done = shell([sys.executable, "-m", "unixsock_bpf", *call], redirection, tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(b"unixsock: cannot write ")
        assert b"which is read; choose another name" in done.stderr
        assert done.stderr.count(b"\n") == 1
    assert capture.read_bytes() == before
    assert log.stat().st_size


def test_an_export_whose_reader_has_seen_enough(tmp_path: Path) -> None:
    from dissector.captures import conversation, write

    capture = write(tmp_path / "a.pcapng", conversation(b"/run/x", [(True, b"x" * 30_000)] * 100))
    done = shell([*COMMAND, "export", str(capture)], "| head -c 1")
    assert done.stdout == b"["
    assert done.stderr == b""


def test_export_to_a_closed_output(tmp_path: Path) -> None:
    from unixsock_bpf.formats import pcapng
    from unixsock_bpf.record import Record, encode

    file = tmp_path / "file.pcapng"
    file.write_bytes(
        pcapng.section_header("", "", "")
        + pcapng.interface("", "", 0)
        + pcapng.packet(1, encode(Record(payload=b"x")))
    )
    for redirection in (">&-", ">/dev/full"):
        done = shell([*COMMAND, "export", str(file)], redirection)
        assert done.returncode == 1
        assert done.stderr.startswith(b"unixsock: cannot write standard output: ")
        assert done.stderr.count(b"\n") == 1


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    size = fcntl.fcntl(write, 1032)  # F_GETPIPE_SZ
    data = os.urandom(3 * size)
    saved = os.dup(1)
    os.dup2(write, 1)
    try:
        seen = bytearray()

        def slowly() -> None:
            while len(seen) < len(data):
                time.sleep(0.02)
                seen.extend(os.read(read, size // 2))

        reader = threading.Thread(target=slowly)
        reader.start()
        Output("-").write([data[:100], data[100:]])
        reader.join()
    finally:
        os.dup2(saved, 1)
        for fd in (saved, read, write):
            os.close(fd)
    assert bytes(seen) == data


def test_a_fifo_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUDO_UID", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    fifo = tmp_path / "out.pcapng"
    os.mkfifo(fifo, 0o600)
    os.chown(fifo, 4711, 4711)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(Failure, match="belongs to user 4711"):
        Output(str(fifo))
    assert os.read(reader, 9) == b""
    monkeypatch.setenv("SUDO_UID", "4711")
    output = Output(str(fifo))
    output.write([b"ours"])
    assert os.read(reader, 9) == b"ours"
    output.close()
    os.close(reader)


def test_a_file_with_another_name_is_not_written_over(tmp_path: Path) -> None:
    """Where the kernel does not forbid it, others can make a link to a file of ours."""
    ours = tmp_path / "ours"
    ours.write_text("ours")
    os.link(ours, tmp_path / "out.pcapng")
    with pytest.raises(Failure, match="has another name too"):
        Output(str(tmp_path / "out.pcapng"))
    assert ours.read_text() == "ours"


def test_devices_and_our_links_are_written_to(tmp_path: Path) -> None:
    Output("/dev/null").close()
    (tmp_path / "link").symlink_to(tmp_path / "new")
    Output(str(tmp_path / "link")).close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "source", ["raise OSError('libbcc.so.0: cannot open')", "x = 1", "def", "import no_such_module"]
)
def test_a_bcc_that_is_of_no_use_is_told(tmp_path: Path, source: str) -> None:
    package = tmp_path / "python3" / "bcc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    (package / "libbcc.py").touch()
    script = (
        f"import sys; sys.path[:0] = [{str(package.parent)!r}, {str(CHECKOUT)!r}]\n"
        "from unixsock_bpf.install import checks\n"
        "print(checks.bcc())\n"
        "from unixsock_bpf.probe import kernel\n"
        "kernel.tracing_refused = lambda: None\n"
        "from unixsock_bpf.errors import ProbeError\n"
        "try: kernel.kernel()\n"
        "except ProbeError as error: print('told', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "met=False" in done.stdout, done.stderr
    assert "told" in done.stdout, done.stderr
