"""Installing and removing, in a home directory of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from unixsock_bpf import pcapng, record
from unixsock_bpf.command import main
from unixsock_bpf.record import Record

EXTCAPS = (".config/wireshark/extcap/unixsock", ".local/lib/wireshark/extcap/unixsock")
PLUGIN = ".local/lib/wireshark/plugins/unixsock.lua"
PROFILE = ".config/wireshark/profiles/Unix sockets"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def tree(folder: Path) -> dict[str, str]:
    """Every file and link below ``folder``, with content or target."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts
    }


def test_it_is_complete_and_goes_away_without_trace(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".config").mkdir()
    (home / ".config" / "mine").write_text("kept")
    assert main(["install", "--user"]) == 0
    said = capsys.readouterr().out
    for path in (*EXTCAPS, PLUGIN, PROFILE):
        assert (home / path).exists()
        assert str(home / path) in said
    for path in EXTCAPS:
        assert [entry.name for entry in (home / path).parent.iterdir()] == ["unixsock"]
        answer = subprocess.run(
            [str(home / path), "--extcap-interfaces"], capture_output=True, text=True, check=True
        )
        assert "{value=unixsock}{display=Unix sockets}" in answer.stdout
    assert (home / PLUGIN).resolve().with_name("unixsock").is_dir()  # the dissector's siblings
    assert main(["uninstall", "--user"]) == 0
    assert [path.name for path in home.rglob("*")] == [".config", "mine"]


def test_twice_is_once(home: Path) -> None:
    assert main(["install"]) == 0
    first = tree(home)
    assert main(["install"]) == 0
    assert tree(home) == first


def test_it_repairs_what_was_damaged(home: Path) -> None:
    main(["install"])
    first = tree(home)
    (home / PLUGIN).unlink()
    library = home / ".local/share/unixsock"
    (library / "unixsock_bpf/record.py").write_text("damaged")
    assert main(["install"]) == 0
    assert tree(home) == first


def test_nobody_elses_file_is_touched(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = home / PLUGIN
    other.parent.mkdir(parents=True)
    other.write_text("-- mine")
    before = tree(home)
    assert main(["install"]) == 1
    assert str(other) in capsys.readouterr().err
    assert tree(home) == before


def test_a_changed_profile_is_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["install"])
    preferences = home / PROFILE / "preferences"
    preferences.write_text("gui.column.format: changed\n")
    assert main(["install"]) == 0
    assert preferences.read_text() == "gui.column.format: changed\n"
    assert main(["uninstall"]) == 0
    assert f"kept, because it was changed: {preferences}" in capsys.readouterr().out
    assert list(tree(home)) == [f"{PROFILE}/preferences"]


def test_uninstall_without_installation_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["uninstall"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_damaged_manifest_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["install"])
    (home / ".local/share/unixsock/manifest.json").write_text("{")
    assert main(["uninstall"]) == 1
    assert "manifest.json cannot be read" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_takes_interface_columns_and_colours(home: Path) -> None:
    main(["install"])
    listed = subprocess.run(["tshark", "-D"], capture_output=True, text=True, check=True)
    assert "unixsock (Unix sockets)" in listed.stdout
    capture = home / "a.pcapng"
    one = Record(dst_name=b"/run/x", type=1, len=3, payload=b"abc")
    blocks = [pcapng.section_header("", "", ""), pcapng.interface("unixsock", "", 0)]
    capture.write_bytes(b"".join([*blocks, pcapng.packet(1, record.encode(one))]))
    shown = tshark("-C", "Unix sockets", "-r", str(capture), "-T", "psml").stdout
    columns = re.findall("<section>(.*?)</section>", shown)
    row = dict(zip(columns[:8], columns[8:], strict=True))
    assert list(row)[1:] == ["Time", "Source", "Destination", "Path", "Protocol", "Length", "Info"]
    assert (row["Path"], row["Length"]) == ("/run/x", "3")
    rules = [
        line.split("@")
        for line in (home / PROFILE / "colorfilters").read_text().splitlines()
        if line[0] == "@"
    ]
    assert len(rules) > 5
    for _, name, condition, _ in rules:
        filtered = tshark("-r", str(capture), "-Y", condition)
        assert filtered.returncode == 0, filtered.stderr
        assert bool(filtered.stdout) == (name == "Streams")


def tshark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["tshark", *arguments], capture_output=True, text=True, check=False)
