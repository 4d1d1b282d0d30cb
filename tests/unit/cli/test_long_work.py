"""Long work shows how far it is on a terminal, and ends in order when interrupted."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

from exports.big_capture import write

from unixsock_bpf.cli import long_work
from unixsock_bpf.cli.long_work import LongWork

ROOT = Path(__file__).parents[3]


def test_an_interrupted_export_is_whole(tmp_path: Path) -> None:
    capture, output = write(tmp_path / "a.pcapng", 200_000), tmp_path / "out.json"
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "unixsock_bpf", "export", str(capture), "-w", str(output)]
    with subprocess.Popen(command, stderr=side, cwd=ROOT) as process:
        os.close(side)
        seen = b""
        while b" left" not in seen:
            data = os.read(terminal, 4096)
            assert data, seen
            seen += data
        process.send_signal(signal.SIGINT)
        while True:
            try:
                data = os.read(terminal, 4096)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            seen += data
    os.close(terminal)
    assert process.returncode == 0
    assert b"exporting" in seen
    assert re.search(rb"\d+ % of 72 MB, [\d:]+ left", seen)
    assert b"stopped; what was written is whole" in seen
    messages = json.loads(output.read_text())
    assert 1000 < len(messages) < 200_000


def test_estimates(monkeypatch, capfd) -> None:
    now = [0.0]
    monkeypatch.setattr(long_work.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "isatty", lambda _: True)
    with LongWork("working") as work:
        assert not work.show(1, 100)  # too early to tell
        now[0] = 10
        work.show(25_000_000, 100_000_000)
        now[0] = 3700
        work.show(50_000_000, 100_000_000)
    shown = capfd.readouterr().err.split("\r\x1b[K")
    assert shown[1] == "unixsock: working: 25 % of 100 MB, 0:30 left"
    assert shown[2] == "unixsock: working: 50 % of 100 MB, 1:01:40 left"
    assert shown[3] == ""


def test_nothing_is_shown_in_a_file(capfd, monkeypatch) -> None:
    monkeypatch.setattr(long_work, "_FIRST_S", 0.0)
    monkeypatch.setattr(long_work, "_EVERY_S", 0.0)
    with LongWork("working") as work:
        work.show(1, 2)
    assert capfd.readouterr().err == ""
