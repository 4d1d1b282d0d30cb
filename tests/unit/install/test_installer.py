"""Installing and removing, in a home directory of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from unixsock_bpf import record
from unixsock_bpf.cli.main import main
from unixsock_bpf.formats import pcapng
from unixsock_bpf.install import installer
from unixsock_bpf.privilege import policy
from unixsock_bpf.probe import ahead
from unixsock_bpf.probe import cache as programs
from unixsock_bpf.record import Record
from unixsock_bpf.wireshark import folders as wireshark_folders

EXTCAPS = (".config/wireshark/extcap/unixsock", ".local/lib/wireshark/extcap/unixsock")
PLUGIN = ".local/lib/wireshark/plugins/unixsock.lua"
PROFILE = ".config/wireshark/profiles/Unix sockets"


@pytest.fixture(autouse=True)
def _nothing_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled for this machine's kernel is the guests' to test."""
    monkeypatch.setattr(ahead, "compile_ahead", lambda: programs.keep("compiled", {}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(programs, "FOLDER", tmp_path.parent / f"{tmp_path.name} programs")
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


def test_what_wireshark_writes_into_the_profile_is_no_change(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / PROFILE).mkdir(parents=True)
    recent = home / PROFILE / "recent"
    recent.write_text("of an older Wireshark\n")
    assert main(["install"]) == 0
    recent.write_text("gui.geometry_main_maximized: TRUE\n")
    assert main(["install"]) == 0
    assert recent.read_text() == "gui.geometry_main_maximized: TRUE\n"
    assert "kept" not in capsys.readouterr().out


def test_the_profile_goes_with_what_wireshark_wrote_into_it(home: Path) -> None:
    main(["install"])
    (home / PROFILE / "recent").write_text("gui.geometry_main_maximized: TRUE\n")
    assert main(["uninstall"]) == 0
    assert not (home / PROFILE).exists()


def test_the_users_own_buttons_are_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Version 0.1.0 had none: they are the user's."""
    buttons = home / PROFILE / "dfilter_buttons"
    buttons.parent.mkdir(parents=True)
    buttons.write_text('"TRUE","Mine","tcp",""\n')
    assert main(["install"]) == 0
    assert f"kept, because it was changed: {buttons}" in capsys.readouterr().out
    assert main(["uninstall"]) == 0
    assert buttons.read_text() == '"TRUE","Mine","tcp",""\n'


def luminance(channels: list[int]) -> float:
    """WCAG's relative luminance of a colour with channels of 16 bits."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (n / 65535 for n in channels)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_are_readable_and_none_is_tcps(home: Path) -> None:
    main(["install"])
    for line in (home / PROFILE / "colorfilters").read_text().splitlines()[1:]:
        back, front = (list(map(int, part.split(","))) for part in re.findall(r"\[([\d,]+)\]", line))
        low, high = sorted((luminance(back), luminance(front)))
        assert (high + 0.05) / (low + 0.05) >= 7, line
        assert max(back) - min(back) > 3000, line  # not the greys of Wireshark's own rules for TCP


def test_uninstall_without_installation_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["uninstall"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_damaged_manifest_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["install"])
    (home / ".local/share/unixsock/manifest.json").write_text("{")
    assert main(["uninstall"]) == 1
    assert "manifest.json cannot be read" in capsys.readouterr().err


class System:
    """An installation for everybody, below a folder of the test's own."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        library = root / "usr/lib/unixsock"
        self.helper, self.group = library / "libexec/unixsock-capture", library / "group"
        self.rights = [root / "sudoers.d/unixsock", root / "actions/a.policy", root / "rules.d/r.rules"]
        folders = {"Global Extcap path": root / "extcap", "Global Lua Plugins": root / "plugins",
                   "Global configuration": root / "config"}  # fmt: skip
        for folder in (*folders.values(), *(path.parent for path in self.rights)):
            folder.mkdir(parents=True)
        monkeypatch.setattr(wireshark_folders, "_printed", lambda: folders)
        for name, value in (("LIBRARY", library), ("HELPER", self.helper), ("GROUP", self.group),
                            ("COMMAND", root / "bin/unixsock")):  # fmt: skip
            monkeypatch.setattr(installer, name, value)
        self.programs = root / "programs"
        monkeypatch.setattr(programs, "FOLDER", self.programs)
        for name, value in zip(("SUDOERS", "ACTION", "RULE"), self.rights):
            monkeypatch.setattr(policy, name, value)

    def right(self) -> str | None:
        """The group that may capture, as every file says it."""
        there = [path.exists() for path in (self.helper, self.group, *self.rights)]
        if not any(there):
            return None
        assert all(there)
        group = self.group.read_text().strip()
        assert f"%{group} ALL=(root:root) NOPASSWD:" in self.rights[0].read_text()
        assert f'isInGroup("{group}")' in self.rights[2].read_text()
        return group


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    return System(tmp_path, monkeypatch)


def test_a_group_keeps_its_right_until_it_is_taken(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--system"]) == 0
    assert system.right() is None
    assert main(["install", "--system", "--group", "daemon"]) == 0
    assert system.right() == "daemon"
    capsys.readouterr()
    assert main(["install", "--system"]) == 0  # a new version
    assert system.right() == "daemon"
    assert "for group daemon" in capsys.readouterr().out
    assert main(["install", "--system", "--group", "games"]) == 0
    assert system.right() == "games"
    assert "group daemon may not capture any more" in capsys.readouterr().out
    assert main(["install", "--system", "--no-group"]) == 0
    assert system.right() is None
    assert "group games may not capture any more" in capsys.readouterr().out
    assert main(["install", "--system", "--group", "daemon"]) == 0
    assert main(["uninstall", "--system"]) == 0
    assert system.right() is None


def test_compiled_programs_go_with_the_installation(system: System) -> None:
    assert main(["install", "--system"]) == 0
    programs.keep("a", {})
    assert (system.programs / "a").exists()
    assert main(["uninstall", "--system"]) == 0
    assert not system.programs.exists()


def test_only_root_compiles_ahead(
    home: Path, system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--user"]) == 0
    assert f"compiled: the probe for kernel {os.uname().release}" in capsys.readouterr().out
    assert (system.programs / "compiled").exists()
    assert main(["uninstall", "--user"]) == 0
    assert not system.programs.exists()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["install", "--user"]) == 0
    assert "compiled" not in capsys.readouterr().out
    assert not system.programs.exists()


def test_what_everybody_has_stays_when_roots_own_goes(home: Path, system: System) -> None:
    assert main(["install", "--system"]) == 0
    assert main(["install", "--user"]) == 0
    assert main(["uninstall", "--user"]) == 0
    assert (system.programs / "compiled").exists()


def test_a_group_file_that_someone_else_put_there_gives_no_right(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--system"]) == 0
    system.group.write_text("games\n")
    assert main(["install", "--system"]) == 0
    assert "for group" not in capsys.readouterr().out
    assert not system.rights[0].exists()


@pytest.mark.parametrize("option", [["--group", "daemon"], ["--no-group"]])
def test_a_users_installation_gives_no_rights(
    option: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", *option]) == 2
    assert f"{option[0]} needs --system" in capsys.readouterr().err
    assert tree(home) == {}


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
    for line in (home / PROFILE / "dfilter_buttons").read_text().splitlines():
        condition = re.sub(r"\$\{.*?\}", "1", line.split('","')[2])  # what a selected packet has
        filtered = tshark("-r", str(capture), "-Y", condition)
        assert filtered.returncode == 0, filtered.stderr
    assert "stream  len=3" in row["Info"]
    assert "/run/x" not in row["Info"]


def tshark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["tshark", *arguments], capture_output=True, text=True, check=False)
