"""Each need, found and missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from unixsock_bpf import dependencies
from unixsock_bpf.cli.main import main
from unixsock_bpf.install import checks
from unixsock_bpf.probe import bcc_package
from unixsock_bpf.wireshark import folders


def test_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not checks.root().met
    assert "sudo" in checks.root().remedy
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert checks.root().met


def test_bcc_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    found = checks.bcc()
    assert not found.met
    assert "python3-bpfcc" in found.remedy


def test_the_systems_bcc_is_found_past_another_project_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyPI's bcc has no BPF; a virtual environment does not see the system's."""
    for folder, files in {
        "environment/bcc": {"__init__.py": "lattice = True\n"},
        "system/python3.99/site-packages/bcc": {
            "__init__.py": "from .libbcc import lib\nBPF, __version__ = lib, '1'\n",
            "libbcc.py": "lib = 'libbcc'\n",
        },
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "bcc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path / "environment")
    monkeypatch.setattr(bcc_package, "_FOLDERS", ((str(tmp_path / "system"), "python3*/site-packages"),))
    try:
        assert bcc_package.load().BPF == "libbcc"
        monkeypatch.delitem(sys.modules, "bcc")
        monkeypatch.setattr(bcc_package, "_FOLDERS", ())
        assert not checks.bcc().met  # the other project's is of no use
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bcc"]:
            del sys.modules[name]


def test_python_packages() -> None:
    assert checks.libraries().met
    assert checks.libraries().found == "lark"  # a capture needs nothing that only datasets do


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=debian", "apt install python3-bpfcc"),
        ("NAME='U'\nID=ubuntu\nID_LIKE=debian", "apt install python3-bpfcc"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"', "apt install python3-bpfcc"),
        ("ID=fedora", "dnf install python3-bcc"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "dnf install python3-bcc"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"', "zypper install python3-bcc"),
        ("ID=arch", "pacman -S python-bcc"),
        ("ID=manjaro\nID_LIKE=arch", "pacman -S python-bcc"),
        ("ID=alpine", "apk add py3-bcc"),
        ("ID=other", None),
        ('ID="unfinished', None),
        ("", None),
    ],
)
def test_a_missing_package_is_named_as_the_system_names_it(
    release: str, command: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "os-release").write_text(release + "\n")
    monkeypatch.setattr(dependencies, "_OS_RELEASE", (tmp_path / "missing", tmp_path / "os-release"))
    remedy = dependencies.how_to_install("bcc")
    if command:
        assert remedy == f"install {command.split()[-1]} ('sudo {command}')"
    else:
        assert remedy == (
            "install python3-bpfcc (Debian, Ubuntu), python3-bcc (Fedora, openSUSE), python-bcc (Arch),"
            " py3-bcc (Alpine)"
        )


@pytest.mark.parametrize(
    ("text", "met"),
    [("[none] integrity confidentiality", True), ("none [integrity] confidentiality", True),
     ("none integrity [confidentiality]", False)],
)  # fmt: skip
def test_lockdown(text: str, met: bool, tmp_path: Path) -> None:
    (tmp_path / "lockdown").write_text(text)
    assert checks.lockdown(str(tmp_path / "lockdown")).met is met


@pytest.mark.parametrize(
    ("text", "said"),
    [("ffffffff82000000 D page_offset_base\nffffffff82000008 D vmemmap_base\n", "addresses are shown"),
     ("0000000000000000 D page_offset_base\n0000000000000000 D vmemmap_base\n", "all addresses are zero"),
     ("ffffffff81000000 T functions_only\n", "kallsyms has no page_offset_base"),
     ("", "kallsyms has no page_offset_base")],
)  # fmt: skip
def test_kallsyms(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "kallsyms").write_text(text)
    found = checks.kallsyms(str(tmp_path / "kallsyms"), kcore=str(tmp_path / "missing"))
    assert found.found.endswith(said)
    assert found.met is ("shown" in said)
    assert not found.needed  # a capture works, with long messages cut


@pytest.mark.parametrize(("restriction", "met"), [("0", True), ("1", True), ("2", False)])
def test_kallsyms_for_an_unprivileged_user_is_what_root_will_see(
    restriction: str, met: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "0000000000000000 D page_offset_base\n0000000000000000 D vmemmap_base\n"
    (tmp_path / "kallsyms").write_text(names)
    (tmp_path / "restriction").write_text(f"{restriction}\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    files = [str(tmp_path / name) for name in ("kallsyms", "restriction", "kcore")]
    assert checks.kallsyms(*files).met is met
    assert not checks.kallsyms(files[0], str(tmp_path / "missing"), files[2]).met
    (tmp_path / "kallsyms").write_text("0000000000000000 T functions_only\n")
    assert not checks.kallsyms(*files).met
    (tmp_path / "kcore").touch()
    assert checks.kallsyms(*files).met


def test_installed_parts_are_of_this_version(empty_home: Path) -> None:
    assert not checks.extcap().met
    assert not checks.dissector().met
    main(["install"])
    assert checks.extcap().met
    assert checks.dissector().met
    library = empty_home / ".local/share/unixsock"
    with (library / "dissector/unixsock.lua").open("a") as file:
        file.write("-- older\n")
    with (library / "unixsock_bpf/version.py").open("a") as file:
        file.write("__version__ = '0.0.1'\n")
    assert not checks.dissector().met
    assert "0.0.1" in checks.extcap().found
    assert not checks.extcap().met


@pytest.mark.parametrize(("lua", "met"), [("with Lua 5.4.6", True), ("without\nLua", False)])
def test_a_wireshark_without_lua(
    lua: str, met: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "tshark"
    fake.write_text(
        f"#!/bin/sh\necho 'TShark (Wireshark) 4.4.0.\n\nCompiled with zlib 1.3, {lua}, with GnuTLS.'\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    check = checks.wireshark()
    assert check.met is met
    assert ("was built without Lua and shows no more than bytes" in check.found) is not met
    assert ("Install a Wireshark with Lua" in check.remedy) is not met


@pytest.mark.parametrize(("version", "met"), [("4.2.5", True), ("4.4.0", False), ("10.0.1", False)])
def test_a_personal_dissector_is_none_for_root_on_a_new_wireshark(
    version: str, met: bool, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["install"])
    fake = empty_home / "tshark"
    fake.write_text(f"#!/bin/sh\necho 'TShark (Wireshark) {version}.'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(empty_home), prepend=":")
    assert checks.dissector().met is met
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert checks.dissector().met


def test_the_command_says_a_line_for_each_and_whether_it_would_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    capsys.readouterr()
    assert main(["check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("MISSING privilege: ") and "sudo" in line for line in lines)
    assert any(line.startswith("MISSING tracing: not tried") for line in lines)
    assert len(lines) == 12


def test_a_wireshark_in_a_sandbox_is_named(tmp_path: Path) -> None:
    place = tmp_path / "snap/wireshark"
    assert list(checks.sandboxed([("Snap", str(place))])) == []
    place.mkdir(parents=True)
    (found,) = checks.sandboxed([("Snap", str(place)), ("Flatpak", str(tmp_path / "none"))])
    assert not found.met
    assert not found.needed
    assert f"the Snap in {place} runs in a sandbox" in found.found
    assert "wireshark" in found.remedy


def test_one_installation_that_hides_another_is_named(
    empty_home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybodys = tmp_path_factory.mktemp("system")
    mine = empty_home / ".config/wireshark/extcap"
    folders_ = [mine, empty_home / ".local/lib/wireshark/extcap", everybodys]
    monkeypatch.setattr(folders, "extcap_folders", lambda: folders_)
    monkeypatch.setenv("PATH", "")
    main(["install"])
    assert list(checks.shadowed()) == []  # one, in both of the user's folders
    (everybodys / "unixsock").write_text("#!/bin/sh\n")
    (found,) = checks.shadowed()
    assert found.found == f"Wireshark uses {mine / 'unixsock'} and leaves out {everybodys / 'unixsock'}"
    assert not found.needed
    main(["uninstall"])
    assert list(checks.shadowed()) == []
    for name in ("first", "second"):
        (empty_home / name).mkdir()
        (empty_home / name / "unixsock").write_text("#!/bin/sh\n")
        (empty_home / name / "unixsock").chmod(0o755)
    (empty_home / "link").symlink_to(empty_home / "first")
    monkeypatch.setenv("PATH", f"{empty_home}/none:{empty_home}/link:{empty_home}/first:{empty_home}/second")
    (found,) = checks.shadowed()
    assert found.found == (
        f"the command is {empty_home}/link/unixsock, which comes before {empty_home}/second/unixsock in PATH"
    )


def test_what_is_refused_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, check in (("user_namespace_refused", checks.root), ("machine_refused", checks.machine)):
        monkeypatch.setattr(checks.refusals, name, lambda: "This (here: there) is so: do that.")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        found = check()
        assert (found.met, found.found, found.remedy) == (False, "This (here: there) is so", "Do that")
