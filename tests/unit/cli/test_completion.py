"""Completion as the shells do it: bash's function is called, a zsh on a terminal of its own is typed at."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_manual import commands, options

COMPLETIONS = Path(__file__).parents[3] / "docs" / "completions"

_BASH = """\
compopt() { :; }
. "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_unixsock
printf '%s\\n' "${COMPREPLY[@]}"
"""

#: Types each argument, a tab, and a key that writes down what the line has become.
_ZSH = """\
zmodload zsh/zpty
zpty shell zsh -f -i
typed() {
    zpty -w "$@"
    for i in {1..100}; do
        sleep 0.1
        zpty -r -t shell >/dev/null
        [[ -s $into ]] && break
    done
    cat $into
    : >$into
}
into=$2
typed shell "fpath=($1 \\$fpath); autoload -Uz compinit; compinit -u -D; unixsock() { :; }; setopt nolistbeep
show() { print -r -- \\$BUFFER >$into; zle kill-whole-line }; zle -N show; bindkey '^X' show
print ready >$into"
shift 2
for line; do
    typed -n shell "$line"$'\\t\\x18'
done
zpty -d shell
"""


def _bash(*words: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", _BASH, "bash", str(COMPLETIONS / "unixsock.bash"), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_bash() -> None:
    assert _bash("unixsock", "du") == ["dump"]
    assert _bash("unixsock", "dump", "--format", "hex") == ["hex", "hexstring"]
    assert _bash("unixsock", "export", "x", "--format", "ru") == ["rust"]
    assert _bash("unixsock", "dump", "-a", "") == ["duration:"]
    assert _bash("unixsock", "dump", "type", "st") == ["stream"]


@pytest.mark.parametrize("command", commands())
def test_bash_knows_each_option(command: str) -> None:
    assert set(_bash("unixsock", command, "-")) == options(command)


def test_zsh(tmp_path: Path) -> None:
    typed = {
        "unixsock du": "unixsock dump ",
        "unixsock dump --format hexs": "unixsock dump --format hexstring ",
        "unixsock dump -a d": "unixsock dump -a duration:",
        "unixsock sockets --js": "unixsock sockets --json ",
        "unixsock dump comm x and gre": "unixsock dump comm x and greater ",
        "unixsock export x --format ru": "unixsock export x --format rust ",
    }
    done = subprocess.run(
        ["zsh", "-f", "-c", _ZSH, "zsh", str(COMPLETIONS), str(tmp_path / "line"), *typed],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["ready", *typed.values()]
