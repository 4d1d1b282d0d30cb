"""tshark, run by root, dissects without root's rights, and still finds the dissector.  Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import soon

from unixsock_bpf.linux import sandbox
from unixsock_bpf.wireshark import tshark

ROOT = Path(__file__).resolve().parents[3]
SAVED = ROOT / "tests/dissector/captures/http.pcapng"
SOMEBODY = 4711


def status(running: subprocess.Popen[bytes]) -> dict[str, list[str]]:
    """/proc/PID/status of a tshark that waits for its input."""
    deadline = time.monotonic() + soon(10)
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


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can look into, unlike pytest's."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_root_keeps_no_right(capture: Path) -> None:
    running = tshark.start(["-r", "-"], subprocess.PIPE)
    found = status(running)
    running.communicate(b"")
    assert found["Uid"] == found["Gid"] == [str(sandbox.NOBODY)] * 4
    assert found["Groups"] == []
    assert {int(found[f"Cap{name}"][0], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert found["NoNewPrivs"] == ["1"]
    assert list(tshark.frame_numbers(str(capture), "unixsock.len > 0"))


def test_why_tshark_fails_is_told(capture: Path) -> None:
    with pytest.raises(tshark.TsharkError, match="nonsense is neither a field nor a protocol name"):
        list(tshark.frame_numbers(str(capture), "nonsense"))


WRITES = """\
#!/usr/bin/python3 -I
import os
for place in {places!r}:
    for what in (lambda: open(place + "/made", "w").write("x" * 9), lambda: os.mkdir(place + "/folder"),
                 lambda: open(place + "/there", "r+").write("changed")):
        try:
            what()
            print("could", place)
        except OSError:
            pass
print(open("/dev/null", "w").write("x"), sum(len(line) > 0 for line in open("/proc/net/dev")) - 2)
"""


def test_roots_tshark_can_write_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "open").mkdir()
    (folder / "open" / "there").write_text("as it was")
    for path in (folder / "open", folder / "open" / "there"):
        path.chmod(0o777)
    places = [str(folder / "open"), "/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/proc/self"]
    fake = folder / "tshark"
    fake.write_text(WRITES.format(places=places))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    said, complaints = tshark.start([], subprocess.DEVNULL).communicate()
    assert complaints == b""
    assert said == b"1 1\n"  # the loopback interface alone
    assert (folder / "open" / "there").read_text() == "as it was"


@pytest.mark.parametrize("owner", [0, SOMEBODY])
def test_a_dissector_that_nobody_can_read_is_found(
    owner: int, folder: Path, capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout below /root, say, or another user's."""
    dissector = folder / "dissector"
    shutil.copytree(ROOT / "dissector", dissector)
    for path in (dissector, *dissector.rglob("*")):
        os.chown(path, owner, owner)
        path.chmod(path.stat().st_mode & 0o700)
    monkeypatch.setattr(tshark, "dissector_source", lambda: dissector / "unixsock.lua")
    assert list(tshark.frame_numbers(str(capture), "unixsock.len > 0"))


def test_mounts_become_read_only_on_kernels_without_mount_setattr(folder: Path) -> None:
    """Linux before 5.12."""
    words = (
        "import errno, os; from pathlib import Path; from unixsock_bpf.linux import sandbox\n"
        "sandbox._SYS_MOUNT_SETATTR = -1\n"
        f"place = Path({str(folder)!r})\n"
        "assert sandbox.freeze_files(place, {'a/b': b'content'})\n"
        "assert (place / 'a/b').read_bytes() == b'content'\n"
        "for path in (place, Path('/tmp'), Path('/dev/shm')):\n"
        "    try: (path / 'made').touch()\n"
        "    except OSError as error: assert error.errno == errno.EROFS\n"
        "    else: raise AssertionError(path)\n"
    )
    subprocess.run([sys.executable, "-c", words], cwd=ROOT, check=True)
    assert list(folder.iterdir()) == []
