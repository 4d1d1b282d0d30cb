"""The man page and the completions know the options that the command knows, and no other."""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import pytest

from unixsock_bpf.cli.dataset_output import PARQUET
from unixsock_bpf.cli.main import parser
from unixsock_bpf.export.registry import FORMATS as EXPORTS
from unixsock_bpf.formats.registry import FORMATS
from unixsock_bpf.options import OPTIONS
from unixsock_bpf.version import __version__

DOCS = Path(__file__).resolve().parents[3] / "docs"
HELP = {"-h", "--help"}


def commands() -> dict[str, argparse.ArgumentParser]:
    """Each subcommand's grammar."""
    (action,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def options(command: str) -> set[str]:
    """Each way to write each option of a subcommand."""
    return {word for action in commands()[command]._actions for word in action.option_strings}


def sections() -> dict[str, str]:
    """The man page's sections, without roff's backslashes."""
    text = (DOCS / "man/unixsock.1").read_text().replace("\\-", "-")
    _, *parts = re.split(r"^\.SH (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2]))


@pytest.mark.parametrize("command", commands())
def test_the_man_page_tells_each_option(command: str) -> None:
    section = sections()[f"OPTIONS OF {command.upper()}"]
    heads = re.findall(r"^\.TP\n(.*)", section, re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--?\w[\w-]*", "\n".join(heads))) == options(command) - HELP


def test_the_man_page_has_a_section_for_each_command_and_no_other() -> None:
    told = {name.removeprefix("OPTIONS OF ").lower() for name in sections() if name.startswith("OPTIONS OF ")}
    assert told == set(commands())
    assert {"-h", "--help", "--version"} <= set(re.findall(r"--?\w+", sections()["OPTIONS"]))


def test_the_interfaces_options_are_all_the_dumps() -> None:
    assert {f"--{option.name}" for option in OPTIONS} <= options("dump")


def test_the_man_page_has_the_values() -> None:
    section = sections()["OPTIONS OF DUMP"]
    assert f'"{" " + "|".join([*FORMATS, PARQUET])}"' in section
    for option in OPTIONS:
        assert not option.choices or option.metavar == "GLOB" or option.metavar in section


def test_the_documents_know_the_formats() -> None:
    for name, values in (("DUMP", FORMATS), ("EXPORT", EXPORTS)):
        assert "|".join(values) in sections()[f"OPTIONS OF {name}"]
    dumps, exports = " ".join([*FORMATS, PARQUET]), " ".join(EXPORTS)
    bash = (DOCS / "completions/unixsock.bash").read_text()
    assert re.findall(r"formats='(.*?)'", bash) == [dumps, exports, "table json csv", "table json dot"]
    zsh = (DOCS / "completions/_unixsock").read_text()
    assert re.findall(r"--format\b.*?:\((.*?)\)", zsh) == [dumps, "table json dot", exports, "table json csv"]
    json_page = (DOCS / "json.md").read_text()
    assert "--format json" in json_page


def test_man_takes_it_without_a_warning() -> None:
    done = subprocess.run(
        ["man", "--warnings", "--local-file", DOCS / "man/unixsock.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "EXIT STATUS" in done.stdout


@pytest.mark.parametrize("command", commands())
def test_zsh_knows_each_option(command: str) -> None:
    text = (DOCS / "completions/_unixsock").read_text()
    (branch,) = re.findall(rf"^        {command}\)(.*?);;$", text, re.MULTILINE | re.DOTALL)
    for variable in ("chosen", "places"):
        if f"${variable}" in branch:
            (more,) = re.findall(rf"^    {variable}=\((.*?)\)$", text, re.MULTILINE | re.DOTALL)
            branch += more
    assert (
        set(re.findall(r"(?<=['{,])--?\w[\w-]*", re.sub(r"'\([^)]*\)", "'", branch)))
        == options(command) - HELP
    )


def test_one_version() -> None:
    """The package's version is the man page's and the Wireshark plugin's."""
    lua = (DOCS.parent / "dissector/unixsock.lua").read_text()
    assert f'local VERSION = "{__version__}"' in lua
    assert f'"unixsock {__version__}"' in (DOCS / "man/unixsock.1").read_text().splitlines()[0]
    changelog = (DOCS.parent / "CHANGELOG.md").read_text()
    assert f"## {__version__}\n" in changelog
