"""Installing and removing, in a home directory of the test's own."""

from __future__ import annotations

import dataclasses
import errno
import grp
import hashlib
import io
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from unixsock_bpf import own_files, record
from unixsock_bpf.cli.main import main
from unixsock_bpf.formats import pcapng
from unixsock_bpf.install import installer, places
from unixsock_bpf.install.manifest import Item
from unixsock_bpf.install.places import Places
from unixsock_bpf.privilege import launch, policy
from unixsock_bpf.probe import cache as programs
from unixsock_bpf.probe import program_set
from unixsock_bpf.record import Record
from unixsock_bpf.wireshark import folders as wireshark_folders

EXTCAPS = (".config/wireshark/extcap/unixsock", ".local/lib/wireshark/extcap/unixsock")
PLUGIN = ".local/lib/wireshark/plugins/unixsock.lua"
PROFILE = ".config/wireshark/profiles/Unix sockets"


compile_bytecode = installer.compile_bytecode


@pytest.fixture(autouse=True)
def _nothing_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled for this machine's kernel is the guests' to test, and bytecode takes seconds."""
    monkeypatch.setattr(program_set, "compile_ahead", lambda: programs.keep("compiled", {}))
    monkeypatch.setattr(installer, "compile_bytecode", lambda *_: None)


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
    capsys.readouterr()
    assert main(["install"]) == 0
    assert f"kept, because it was changed: {preferences}" in capsys.readouterr().out
    assert preferences.read_text() == "gui.column.format: changed\n"
    assert main(["uninstall"]) == 0
    assert f"kept, because it was changed: {preferences}" in capsys.readouterr().out
    assert list(tree(home)) == [f"{PROFILE}/preferences"]


def test_another_version_elsewhere_is_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wireshark_folders, "plugin_folders", lambda: [(home / PLUGIN).parent, tmp_path])
    main(["install"])
    assert "another version" not in capsys.readouterr().out
    (tmp_path / "unixsock.lua").write_text("-- older\n")
    main(["install"])
    assert f"note: {tmp_path}/unixsock.lua is of another version" in capsys.readouterr().out


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


def test_the_colouring_rules_are_the_same_in_both_forms(home: Path) -> None:
    """Wireshark 5.0 reads the newer one, earlier versions the other."""
    main(["install"])
    newer = []
    for rule in json.loads((home / PROFILE / "coloring_rules.jsonc").read_text()):
        ((name, what),) = rule.items()
        assert what["enabled"] is True
        newer.append((name, what["filter"], what["background"], what["foreground"]))
    older = []
    for line in (home / PROFILE / "colorfilters").read_text().splitlines()[1:]:
        _, name, condition, colours = line.split("@")
        parts = [list(map(int, part.split(","))) for part in re.findall(r"\[([\d,]+)\]", colours)]
        older.append((name, condition, *(f"#{bytes(n >> 8 for n in part).hex()}" for part in parts)))
    assert newer == older


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
        for name, value in (("LIBRARY", library), ("HELPER", self.helper), ("GROUP", self.group)):
            monkeypatch.setattr(launch, name, value)
        monkeypatch.setattr(places, "COMMAND", root / "bin/unixsock")
        self.programs = root / "programs"
        monkeypatch.setattr(programs, "FOLDER", self.programs)
        for name, value in zip(("SUDOERS", "ACTION", "RULE"), self.rights):
            monkeypatch.setattr(policy, name, value)
        monkeypatch.setattr(policy, "HELPER", self.helper)
        self._monkeypatch = monkeypatch
        self.set_members([])

    def set_members(self, names: list[str], others: list[pwd.struct_passwd] | None = None) -> None:
        """Give every group these members, and the machine these ``others`` as users."""
        self._monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", 60, names)))
        self._monkeypatch.setattr(pwd, "getpwall", lambda: others or [])

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


@pytest.fixture
def without_tshark(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """An installation with a group, on a system that has no tshark any more."""
    assert main(["install", "--system", "--group", "games"]) == 0
    monkeypatch.setattr(wireshark_folders, "_printed", dict)
    return system


def test_removal_needs_no_tshark(without_tshark: System) -> None:
    assert main(["uninstall", "--system"]) == 0
    assert without_tshark.right() is None
    left = {path for path in without_tshark.root.rglob("*") if not path.is_dir()}
    assert left == set()


def test_a_right_can_be_taken_without_tshark(
    without_tshark: System, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--system", "--no-group"]) == 0
    assert without_tshark.right() is None
    said = capsys.readouterr().out
    assert said.count("group games may not capture any more") == 1
    assert "note: the rest of the installation is as it was: 'tshark -G folders'" in said


@pytest.mark.parametrize("command", [["uninstall"], ["install", "--no-group"]])
@pytest.mark.parametrize("damage", ["{", None])
def test_a_right_can_be_taken_whatever_was_damaged(
    damage: str | None, command: list[str], without_tshark: System
) -> None:
    """An administrator changed the files of the right; the manifest is damaged or missing."""
    without_tshark.rights[0].chmod(0o640)
    for path in without_tshark.rights:
        path.write_text(path.read_text() + "\n")
    manifest = without_tshark.helper.parents[1] / "manifest.json"
    manifest.write_text(damage) if damage else manifest.unlink()
    main([*command, "--system"])
    assert without_tshark.right() is None


def test_a_changed_right_goes_too(without_tshark: System) -> None:
    without_tshark.rights[0].chmod(0o640)
    without_tshark.rights[0].write_text("# changed\n")
    assert main(["uninstall", "--system"]) == 0
    assert without_tshark.right() is None


def test_other_programs_rights_stay(without_tshark: System) -> None:
    (without_tshark.helper.parents[1] / "manifest.json").unlink()
    without_tshark.rights[0].chmod(0o640)
    without_tshark.rights[0].write_text("# another's\n")
    main(["uninstall", "--system"])
    assert without_tshark.rights[0].read_text() == "# another's\n"


def _bytecode(library: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(library.rglob("__pycache__/*"))}


def _loads(library: Path) -> None:
    """Import what is there, as the command does."""
    words = f"import sys; sys.path.insert(0, {str(library)!r}); import unixsock_bpf.cli.main"
    subprocess.run(["/usr/bin/python3", "-BI", "-c", words], check=True)


def test_bytecode_is_made_and_repaired_by_the_installation(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's programs write none: under a caller's limit it would be cut, and used all the same."""
    monkeypatch.setattr(installer, "compile_bytecode", compile_bytecode)
    os.umask(0o077)
    assert main(["install", "--system"]) == 0
    library = system.helper.parents[1]
    first = _bytecode(library)
    sources = {path.stem for path in (library / "unixsock_bpf").rglob("*.py")}
    assert {path.name.partition(".")[0] for path in first} == sources
    assert {path.stat().st_mode & 0o777 for path in first} == {0o644}
    assert {path.parent.stat().st_mode & 0o777 for path in first} == {0o755}
    recorded = json.loads((library / "manifest.json").read_text())["files"]
    assert {str(path) for path in first} <= set(recorded)
    broken = next(path for path in first if path.match("cli/__pycache__/main.*"))
    broken.write_bytes(broken.read_bytes()[:100])
    stale = broken.with_name("gone.cpython-39.pyc")
    stale.write_bytes(b"stale")
    with pytest.raises(subprocess.CalledProcessError):
        _loads(library)
    assert main(["install", "--system"]) == 0
    assert set(_bytecode(library)) == set(first)
    _loads(library)
    assert main(["uninstall", "--system"]) == 0
    assert not library.exists()


@pytest.mark.parametrize("upgrade", [False, True])
def test_an_interrupted_installation_can_be_removed(
    upgrade: bool, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file it was at, new or of another version than before."""
    commit, items = Item.commit, installer.files_of
    command = ["install", "--system", "--group", "games"]
    at, count = 0, 0

    def interrupted(item: Item) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        commit(item)

    def older(places: Places) -> list[Item]:
        return [
            dataclasses.replace(one, source=None, text="older") if one.source else one
            for one in items(places)
            if one.target.name != "record.py"
        ]

    for number in (2, 60, 103):
        at = number
        if upgrade:
            monkeypatch.setattr(installer, "files_of", older)
            assert main(command) == 0
            monkeypatch.setattr(installer, "files_of", items)
        count = 0
        monkeypatch.setattr(Item, "commit", interrupted)
        assert main(command) == 128 + signal.SIGINT
        monkeypatch.setattr(Item, "commit", commit)
        assert main(["uninstall", "--system"]) == 0
        left = {path for path in system.root.rglob("*") if not path.is_dir()}
        assert left == set()


def test_who_is_in_the_group_is_shown_and_asked(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    user = pwd.struct_passwd(("carol", "x", 4711, 60, "", "/", "/bin/sh"))
    system.set_members(["bob", "alice"], [user])
    assert main(["install", "--system", "--group", "games"]) == 1
    said = capsys.readouterr()
    assert "group: games already has members: alice, bob, carol\n" in said.out
    assert "--yes" in said.err
    assert system.right() is None
    assert main(["install", "--system", "--group", "games", "--yes"]) == 0
    assert system.right() == "games"
    assert main(["install", "--system", "--group", "games"]) == 0  # it has the right already
    assert main(["install", "--system", "--group", "daemon"]) == 1
    assert system.right() == "games"


@pytest.mark.parametrize(("answer", "right"), [("y", "games"), ("", None), ("no", None)])
def test_the_question_is_answered_at_a_terminal(
    answer: str, right: str | None, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.set_members(["alice"])
    monkeypatch.setattr("sys.stdin", _Terminal(f"{answer}\n"))
    monkeypatch.setattr("sys.stdout", _Terminal())
    assert main(["install", "--system", "--group", "games"]) == (0 if right else 1)
    assert system.right() == right


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def foreign_home(home: Path) -> Path:
    """Root's HOME is another user's, as after sudo -E."""
    os.chown(home, 4711, 4711)
    return home


def test_root_does_nothing_by_way_of_a_users_home(
    foreign_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install"]) == 1
    assert f"by way of {foreign_home}, which others than root can write" in capsys.readouterr().err
    assert tree(foreign_home) == {}


def test_root_removes_nothing_by_a_users_manifest(
    foreign_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    victim = tmp_path_factory.mktemp("victim")
    (victim / "__pycache__").mkdir()
    (victim / "__pycache__/a").write_text("root's")
    (victim / "unixsock").write_text("root's")
    state = hashlib.sha256(b"root's").hexdigest()
    library = foreign_home / ".local/share/unixsock"
    library.mkdir(parents=True)
    manifest = {"files": {str(victim / "unixsock"): state}, "folders": [str(victim)]}
    (library / "manifest.json").write_text(json.dumps(manifest))
    before = tree(victim)
    for owner in (4711, 0):  # or it is root's home, and the library the user's
        os.chown(foreign_home, owner, owner)
        os.chown(library, 4711, 4711)
        assert main(["uninstall"]) == 1
        assert tree(victim) == before
        assert (victim / "__pycache__/a").exists()


def test_a_manifest_names_nothing_but_the_installations_files(home: Path) -> None:
    other = home / "mine"
    other.write_text("kept")
    main(["install"])
    path = home / ".local/share/unixsock/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][str(other)] = hashlib.sha256(b"kept").hexdigest()
    path.write_text(json.dumps(manifest))
    assert main(["uninstall"]) == 1
    assert other.exists()


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
    buttons = [
        re.sub(r"\$\{.*?\}", "1", line.split('","')[2])  # what a selected packet has
        for line in (home / PROFILE / "dfilter_buttons").read_text().splitlines()
    ]
    others = [condition for _, name, condition, _ in rules if name != "Streams"]
    (streams,) = (condition for _, name, condition, _ in rules if name == "Streams")
    # A tshark starts slowly: one for many filters, each of which it has to understand.
    for filters, shows in ((others, False), ([streams], True), ([streams, *buttons], True)):
        filtered = tshark("-r", str(capture), "-Y", " or ".join(f"({one})" for one in filters))
        assert filtered.returncode == 0, filtered.stderr
        assert bool(filtered.stdout) == shows
    assert "stream  len=3" in row["Info"]
    assert "/run/x" not in row["Info"]


def tshark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["tshark", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def packaged(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """What a distribution's package installs, run from there."""
    library = system.helper.parents[1]
    for path in (system.helper, system.rights[1], library / "package"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Some package unixsock: remover unixsock\n")
    (library / "unixsock_bpf").symlink_to(own_files.ROOT / "unixsock_bpf")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    return system


def test_a_package_has_its_right_given_and_taken_and_nothing_else(
    packaged: System, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(packaged.root)
    assert main(["install", "--system", "--group", "games"]) == 0
    assert packaged.right() == "games"
    assert main(["install", "--system"]) == 0
    assert packaged.right() == "games"
    assert main(["install", "--system", "--group", "daemon"]) == 0
    assert packaged.right() == "daemon"
    assert "group games may not capture any more" in capsys.readouterr().out
    (packaged.helper.parents[1] / "manifest.json").write_text("{")  # damaged, it keeps nobody's right
    assert main(["install", "--system", "--no-group"]) == 1
    after = tree(packaged.root)
    assert {**before, **after} == after
    assert set(after) - set(before) == {"usr/lib/unixsock/manifest.json", "programs/compiled"}


@pytest.mark.parametrize("command", [["uninstall"], ["uninstall", "--system"], ["install"]])
def test_a_packages_files_are_the_package_managers(
    command: list[str], packaged: System, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(packaged.root)
    assert main(command) == 1
    assert "this is the Some package unixsock" in capsys.readouterr().err
    assert tree(packaged.root) == before


def test_a_checkout_leaves_a_package_alone(packaged: System, capsys: pytest.CaptureFixture[str]) -> None:
    link = packaged.helper.parents[1] / "unixsock_bpf"
    link.unlink()
    link.mkdir()
    before = tree(packaged.root)
    assert main(["install", "--system"]) == 1
    said = capsys.readouterr().err
    assert "belongs to the Some package unixsock: remove that first with 'sudo remover unixsock'" in said
    assert tree(packaged.root) == before


@pytest.mark.parametrize("upgrade", [False, True])
def test_a_full_disk_changes_nothing(
    upgrade: bool, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if upgrade:
        assert main(["install"]) == 0
        (home / ".local/share/unixsock/unixsock_bpf/version.py").write_text("older")
    before, folders = tree(home), sorted(home.rglob("*"))
    write, written = Path.write_bytes, 0

    def full(path: Path, content: bytes) -> int:
        nonlocal written
        written += 1
        if written == (1 if upgrade else 50):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    capsys.readouterr()
    assert main(["install"]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(rf"unixsock: cannot write {home}/\S+: no space left on device\n", said)
    assert tree(home) == before
    assert sorted(home.rglob("*")) == folders


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_home_that_cannot_be_looked_into(command: str, home: Path) -> None:
    """Such as one on NFS for root, who is nobody there."""
    assert main([command]) == 0
    assert main(["uninstall"]) == 0
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:  # all is imported by now: this user may not even be able to read the checkout
            os.dup2(said.fileno(), 2)
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            os.setresuid(4711, 4711, 4711)
            os._exit(main([command]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        said.seek(0)
        text = said.read().decode()
    assert re.fullmatch(r"unixsock: .*permission denied.*\n", text, re.IGNORECASE), text
    assert not list(home.iterdir())
