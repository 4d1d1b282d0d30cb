"""The ``unixsock`` command: sockets in a terminal, in files and in tests, without Wireshark.

Each subcommand is a module with ``add`` (its arguments) and ``run`` (its exit status).
Exit status: 0; 1 if it could not be done; 2 for a call that makes no sense.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from unixsock_bpf import dependencies
from unixsock_bpf.cli.errors import Failure, say
from unixsock_bpf.linux import standard_streams
from unixsock_bpf.version import __version__

_DESCRIPTION = "Capture Unix domain sockets, list them, and turn captures into test fixtures."


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message}; see '{self.prog} --help'", 2)


#: The module of each subcommand.
_COMMANDS = {
    name: f"unixsock_bpf.cli.{module}"
    for name, module in (
        ("dump", "dump"),
        ("record", "record"),
        ("sockets", "sockets"),
        ("check", "check"),
        ("install", "install"),
        ("export", "export"),
        ("import", "import_"),
        ("query", "query"),
        ("replay", "replay"),
    )
}


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the command line's grammar: of one subcommand, whose module alone is imported then, or whole."""
    top = _Parser("unixsock", description=_DESCRIPTION, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"unixsock {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for module in [_COMMANDS[command]] if command in _COMMANDS else _COMMANDS.values():
        import_module(module).add(commands)
    return top


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments; words of a capture filter may stand between options.  Raises Failure."""
    arguments, rest = parser(argv[0] if argv else None).parse_known_args(argv)
    for word in rest:
        if word.startswith("-") or not hasattr(arguments, "filter_words"):
            raise Failure(f"unrecognised argument {word!r}; see 'unixsock {arguments.command} --help'", 2)
    if rest:
        arguments.filter_words += rest
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run one call and return its exit status."""
    if argv is None:  # a program of its own: until something is captured, Ctrl-C may simply end it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        standard_streams.prepare()
    try:
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
            status = int(arguments.run(arguments))
        except SystemExit as end:  # --help, --version
            if argv is not None:
                raise
            status = int(end.code or 0)
        sys.stdout.flush()
        return status
    except Failure as failure:
        say(f"unixsock: {failure}")
        return failure.status
    except ImportError as error:
        sentence = dependencies.sentence(error)
        if sentence is None:
            raise
        say(f"unixsock: {sentence}")
        return 1
    except standard_streams.OutputError as error:
        say(f"unixsock: {error}")
        return 1
    except BrokenPipeError:  # the reader has seen enough
        if argv is not None:
            raise
        return 0
    except KeyboardInterrupt:
        return 130
