"""tshark, run by root, dissects without root's rights, and still finds the dissector.  Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from unixsock_bpf.wireshark import tshark

ROOT = Path(__file__).resolve().parents[3]
SAVED = ROOT / "tests/dissector/captures/http.pcapng"
SOMEBODY = 4711


def status(running: subprocess.Popen[bytes]) -> dict[str, list[str]]:
    """/proc/PID/status of a tshark that waits for its input."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
        found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        if found["Name"] == ["tshark"]:
            return found
        time.sleep(0.01)
    raise AssertionError(found)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A capture that only root can read."""
    path = tmp_path / "a.pcapng"
    shutil.copyfile(SAVED, path)
    path.chmod(0o600)
    return path


def test_root_keeps_no_right_where_there_are_user_namespaces(capture: Path) -> None:
    running = tshark.start(["-r", "-"], subprocess.PIPE)
    found = status(running)
    running.communicate(b"")
    command = ["unshare", "--user", "--map-user=1", "true"]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        assert [int(found[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
    assert tshark.frame_numbers(str(capture), "unixsock.len > 0")


def test_somebodys_dissector_is_run_as_somebody(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "dissector"
        shutil.copytree(ROOT / "dissector", folder)
        for path in (folder.parent, folder, *folder.rglob("*")):
            os.chown(path, SOMEBODY, SOMEBODY)
            path.chmod(path.stat().st_mode & 0o700)
        monkeypatch.setattr(tshark, "dissector_source", lambda: folder / "unixsock.lua")
        running = tshark.start(["-r", "-"], subprocess.PIPE)
        found = status(running)
        running.communicate(b"")
        assert found["Uid"] == found["Gid"] == [str(SOMEBODY)] * 4
        assert found["Groups"] == []
        assert tshark.frame_numbers(str(capture), "unixsock.len > 0")


@pytest.mark.parametrize(("version", "refused"), [("4.0.17", False), ("4.4.9", True), ("5.0.0", True)])
def test_where_root_would_get_no_dissector_it_is_told(
    version: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "tshark"
    fake.write_text(f"#!/bin/sh\necho 'TShark (Wireshark) {version}.'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(tshark, "_in_user_namespace", list)
    with pytest.raises(tshark.TsharkError, match="install --system") if refused else nullcontext():
        tshark.start(["-r", "-"], subprocess.DEVNULL).communicate()
