"""Arguments that select what to capture: the interface's options, and the capture filter."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.dataset.limits import Limits
from unixsock_bpf.filter import Filter, FilterError, FilterUnavailable
from unixsock_bpf.options import OPTIONS, OptionError, Settings, join_filter, settings

#: Primitives whose value may hold spaces when the shell gives it as one word.
_SPACED = {"path", "comm", "cgroup"}


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add the capture filter: the remaining arguments."""
    parser.add_argument(
        "filter_words",
        nargs="*",
        metavar="FILTER",
        help="capture filter, such as: /run/docker.sock, @/tmp/.X11-unix/X0, comm 'dbus*' and greater 99",
    )


def add_options(parser: argparse.ArgumentParser, *, terms_only: bool = False) -> None:
    """Add the interface's options; with ``terms_only``, those that are filter primitives."""
    for option in OPTIONS:
        if option.primitive or not terms_only:
            help_text = (option.help or option.tooltip).replace("%", "%%")
            if option.is_flag:
                parser.add_argument(f"--{option.name}", action="store_true", help=help_text)
            else:
                parser.add_argument(f"--{option.name}", metavar=option.metavar, help=help_text)


def add_limits(parser: argparse._ActionsContainer) -> None:
    """Add what limits the files of a dataset."""
    size, age = "begin a new file at this size; default: 128", "and after so many seconds; default: 3600"
    parser.add_argument("--rotate-size", metavar="MB", type=_positive, default=128.0, help=size)
    parser.add_argument("--rotate-age", metavar="S", type=_positive, default=3600.0, help=age)


def _positive(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0")
    return value


def limits(arguments: argparse.Namespace) -> Limits:
    """Return what ``add_limits`` was given."""
    return Limits(int(arguments.rotate_size * 1_000_000), arguments.rotate_age)


def _values(arguments: argparse.Namespace) -> dict[str, str]:
    found = {option.name: getattr(arguments, option.name.replace("-", "_"), None) for option in OPTIONS}
    for name, value in found.items():
        if value == "":  # in Wireshark's dialog that is "any"; here more likely a variable without a value
            raise Failure(f"option --{name} has no value; leave it out for any", 2)
    return {
        name: "" if value is True else str(value)
        for name, value in found.items()
        if value is not None and value is not False
    }


def filter_text(words: Sequence[str]) -> str:
    """Join ``words`` to a capture filter; a first word that begins with ``*`` is a path, as in sockdump."""
    words = list(words)
    if words and words[0].startswith("*"):
        words.insert(0, "path")
    for at in range(1, len(words)):
        if words[at - 1] in _SPACED and not words[at].startswith(("'", '"')):
            words[at] = words[at].replace(" ", "\\ ")
    return " ".join(words)


def _checked(text: str) -> str:
    """Return ``text`` if it is a filter.  Raises Failure, with a mark below the faulty word."""
    from unixsock_bpf.filter import parse

    try:
        parse(text)
    except FilterUnavailable as error:
        raise Failure(str(error)) from None
    except FilterError as error:
        marked = ""
        if error.position and text.isprintable() and len(text) <= 200:
            marked = f"\n  {text}\n  {' ' * (error.position - 1)}^"
        raise Failure(f"capture filter: {error}{marked}", 2) from None
    return text


def filter_of(words: Sequence[str]) -> Filter:
    """Parse the capture filter in ``words``.  Raises Failure."""
    from unixsock_bpf.filter import parse

    return parse(_checked(filter_text(words)))


def chosen_filter(arguments: argparse.Namespace) -> Filter:
    """Return the options that are primitives, joined with the filter's words.  Raises Failure."""
    text = _checked(filter_text(arguments.filter_words))
    try:
        return join_filter(_values(arguments), text)
    except (OptionError, FilterError) as error:
        raise Failure(str(error), 2) from None


def chosen_settings(arguments: argparse.Namespace) -> Settings:
    """Return what to capture, and how.  Raises Failure."""
    text = _checked(filter_text(arguments.filter_words))
    try:
        return settings(_values(arguments), text)
    except (OptionError, FilterError) as error:
        raise Failure(str(error), 2) from None
