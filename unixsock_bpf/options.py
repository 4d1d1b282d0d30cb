"""The options of a capture, as data: one table for Wireshark's dialog, for extcap and for the command line.

Importing this is cheap; the filter language is loaded only when options are parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unixsock_bpf.filter import Filter
    from unixsock_bpf.filter.ast import Node


class OptionError(ValueError):
    """An option that is refused, in one sentence."""


@dataclass(frozen=True)
class Option:
    """One option.

    ``kind`` is a type of argument that Wireshark 4.0 knows, or ``number``.  ``primitive`` options are
    terms of the capture filter.  ``neutral`` are the values, besides none, that mean "any".
    ``validation``: what the dialog accepts, as a PCRE without braces; an empty field is always accepted.
    ``choices``: (value, text), the first being the default.  ``help``: the command's help text,
    where the tooltip is for the dialog.
    """

    name: str
    group: str
    label: str
    tooltip: str
    kind: str = "string"
    metavar: str = ""
    default: int | None = None
    low: int = 0
    high: int = 0
    validation: str = ""
    placeholder: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    reload: bool = False
    primitive: bool = False
    neutral: tuple[str, ...] = ()
    help: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether it has no value."""
        return self.kind == "boolflag"


_SOCKETS, _PROCESSES, _CAPTURE = "Sockets", "Processes", "Capture"

OPTIONS = (
    Option(
        "path",
        _SOCKETS,
        "Socket",
        "Capture conversations of which either side is bound to this name. A leading @ is an abstract name."
        " Patterns with *, ? and [...] can be given in the capture filter or as a preference",
        "selector",
        "GLOB",
        choices=(("*", "All sockets"),),
        placeholder="List present sockets",
        reload=True,
        primitive=True,
        neutral=("*",),
        help="either socket is bound to a name that matches; a leading @ is an abstract name",
    ),
    Option(
        "type",
        _SOCKETS,
        "Socket type",
        "Capture sockets of this type only",
        "selector",
        "stream|dgram|seqpacket",
        choices=(
            ("any", "Any"),
            ("stream", "Stream (SOCK_STREAM)"),
            ("dgram", "Datagram (SOCK_DGRAM)"),
            ("seqpacket", "Sequenced packets (SOCK_SEQPACKET)"),
        ),
        primitive=True,
        neutral=("any",),
        help="only sockets of this type",
    ),
    Option(
        "pid",
        _PROCESSES,
        "Process ID",
        "Capture what this process sends or receives; empty for any",
        "number",
        "N",
        low=1,
        high=1 << 22,
        validation=r"^\d+$",
        placeholder="any",
        primitive=True,
        neutral=("0",),  # what Wireshark saved for an untouched field of version 0.1.0
        help="either endpoint belongs to process N; 0: any",
    ),
    Option(
        "comm",
        _PROCESSES,
        "Process name",
        "Capture what processes of this name send or receive: a glob with *, ? and [...],"
        " compared with the first 15 bytes of the name",
        metavar="GLOB",
        placeholder="any; for example curl*",
        primitive=True,
        help="either endpoint's process name matches; its first 15 bytes count",
    ),
    Option(
        "uid",
        _PROCESSES,
        "User",
        "Capture what processes of this user, by name or number, send or receive",
        metavar="NAME|N",
        placeholder="any; for example root",
        validation=r"^[^\s:/]*$",
        primitive=True,
        help="either endpoint's process runs as this user",
    ),
    Option(
        "snaplen",
        _CAPTURE,
        "Bytes of each message",
        "Capture at most so many bytes of each message; 0 for all",
        "number",
        "BYTES",
        default=0,
        high=(1 << 31) - 1,
        validation=r"^\d+$",
        placeholder="all",
        help="capture at most so many bytes of each message; default: 0 (all)",
    ),
    Option(
        "buffer-size",
        _CAPTURE,
        "Buffer (MiB)",
        "Size of the ring buffer between kernel and reader. Messages that find it full are lost, and counted",
        "number",
        "MIB",
        default=64,
        low=1,
        high=1024,
        validation=r"^([1-9]\d?\d?|10[01]\d|102[0-4])$",
        placeholder="64",
        help="size of the ring buffer between kernel and reader; messages that find it full are"
        " lost, and counted; default: 64",
    ),
    Option(
        "events",
        _CAPTURE,
        "Connects, closes and failed sends too",
        "Also capture what happens to sockets besides messages:"
        " connect, accept, shutdown, close, failed sends and refused connects",
        "boolflag",
        help="also record connect, accept, shutdown, close, failed sends and refused connects",
    ),
    Option(
        "process-details",
        _CAPTURE,
        "Executable, command line, parent and user",
        "Also record what /proc tells of the processes at both ends: executable, command line, parent and"
        " user name, where they still run when they are looked up",
        "boolflag",
        help="also record executable, command line, parent and user name of the processes at both ends",
    ),
    Option(
        "process-blocks",
        _CAPTURE,
        "The same as process information blocks",
        "Also write these details as pcapng process information blocks: frame.process of Wireshark 5.0."
        " Earlier versions show each as a packet",
        "boolflag",
        help="the same, and as pcapng blocks for Wireshark 5.0; earlier versions show each as a packet",
    ),
    Option(
        "include-capture-processes",
        _CAPTURE,
        "Include the capture's own processes",
        "Also capture Wireshark's own sockets (this feeds back on itself)",
        "boolflag",
        help="also capture this program's and Wireshark's own sockets (this feeds back on itself)",
    ),
    Option(
        "privilege",
        _CAPTURE,
        "Right to capture",
        "How an unprivileged user starts the privileged helper, which"
        " 'sudo unixsock install --system --group GROUP' sets up. Root needs none",
        "selector",
        "auto|sudo|pkexec|none",
        choices=(
            ("auto", "sudo, or else pkexec"),
            ("sudo", "sudo, without a password"),
            ("pkexec", "pkexec, which may ask"),
            ("none", "None: only root captures"),
        ),
        help="how an unprivileged user starts the privileged helper, which"
        " 'sudo unixsock install --system --group GROUP' sets up; default: auto (sudo, or else pkexec)",
    ),
)

_SERVER = "Server"

#: What leads to another host, in the words of Wireshark's sshdump.
REMOTE_OPTIONS = (
    Option(
        "remote-host",
        _SERVER,
        "Remote host",
        "The host, as ssh names it: a name of ~/.ssh/config, or user@address."
        " Several, separated by spaces, are merged in the order of time",
        placeholder="for example db1",
    ),
    Option(
        "remote-port",
        _SERVER,
        "Remote port",
        "The port of its SSH server; empty for ssh's own choice",
        "number",
        low=1,
        high=65535,
        validation=r"^\d+$",
        placeholder="22, or what ~/.ssh/config says",
    ),
    Option(
        "remote-username",
        _SERVER,
        "User name",
        "The user there; empty for ssh's own choice",
        placeholder="as ~/.ssh/config says",
    ),
    Option(
        "proxy-jump",
        _SERVER,
        "Jump host",
        "The hosts to go through, as ssh's -J takes them",
        placeholder="for example me@bastion",
    ),
    Option(
        "sshkey",
        _SERVER,
        "Private key",
        "The file of the key; empty for the agent's and ssh's own. A passphrase is the agent's business",
        "fileselect",
    ),
    Option(
        "remote-priv",
        _SERVER,
        "Become root by",
        "How to become root there, without a password. None: for root's own login, and where the"
        " user's group may capture",
        "selector",
        choices=(("sudo", "sudo -n"), ("doas", "doas -n"), ("none", "None")),
    ),
    Option(
        "via",
        _SERVER,
        "Or by this command",
        "In place of ssh, a command that is put in front of unixsock and runs it there,"
        " such as docker exec -i c",
        placeholder="for example docker exec -i c",
    ),
)

#: The options of the interface for other hosts.
HOST_OPTIONS = (*REMOTE_OPTIONS, *(option for option in OPTIONS if option.name != "privilege"))

BY_NAME = {option.name: option for option in (*OPTIONS, *REMOTE_OPTIONS)}


def _everything() -> Filter:
    from unixsock_bpf.filter import everything

    return everything()


@dataclass(frozen=True)
class Settings:
    """What to capture, and how.

    ``filter`` joins the options with the capture filter.  ``snaplen``: bytes of a message, 0
    for all; ``buffer_mib``: MiB.  ``events``: asked for by the option or by the filter.
    ``process_details``: asked for by either option.
    ``capturers``: processes that belong to the capture, besides those that it finds itself.
    """

    filter: Filter = field(default_factory=_everything)
    snaplen: int = 0
    buffer_mib: int = 64
    events: bool = False
    include_capture_processes: bool = False
    process_details: bool = False
    process_blocks: bool = False
    privilege: str = "auto"
    capturers: tuple[int, ...] = ()
    fifo: str | None = None
    control_in: str | None = None
    control_out: str | None = None


def scan(argv: Sequence[str], known: dict[str, bool]) -> tuple[dict[str, str], list[str]]:
    """Split arguments into options with their values (``""`` for flags), and other words.

    ``known`` maps names without dashes to "takes a value".  ``--x v`` and ``--x=v`` are the
    same; the last value counts.  Raises OptionError.
    """
    values: dict[str, str] = {}
    words = []
    rest = iter(argv)
    for word in rest:
        if not word.startswith("--") or word == "--":
            words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name not in known:
            raise OptionError(f"there is no option {_shown('--' + name)}")
        if not known[name]:
            if equals:
                raise OptionError(f"option --{name} takes no value")
        elif not equals:
            following = next(rest, None)
            if following is None:
                raise OptionError(f"option --{name} needs a value")
            value = following
        values[name] = value
    return values, words


def settings(
    values: dict[str, str],
    capture_filter: str = "",
    fifo: str | None = None,
    control_in: str | None = None,
    control_out: str | None = None,
) -> Settings:
    """Return the settings for options as ``scan`` gives them, and a capture filter.

    Raises OptionError for a bad option or filter.
    """
    from unixsock_bpf.filter import FilterError

    try:
        joined = join_filter(values, capture_filter)
    except FilterError as error:
        raise OptionError(f"Capture filter: {error}") from None
    return Settings(
        filter=joined,
        snaplen=_number(BY_NAME["snaplen"], values),
        buffer_mib=_number(BY_NAME["buffer-size"], values),
        events="events" in values or joined.asks_for_events,
        include_capture_processes="include-capture-processes" in values,
        process_details="process-details" in values or "process-blocks" in values,
        process_blocks="process-blocks" in values,
        privilege=_choice(BY_NAME["privilege"], values),
        fifo=fifo,
        control_in=control_in,
        control_out=control_out,
    )


def remote_port(values: dict[str, str]) -> int:
    """Return the port for options as ``scan`` gives them; 0 for none.  Raises OptionError."""
    return _number(BY_NAME["remote-port"], values) if values.get("remote-port", "0") != "0" else 0


def remote_privilege(values: dict[str, str]) -> str:
    """Return how to become root on another host.  Raises OptionError."""
    return _choice(BY_NAME["remote-priv"], values)


def join_filter(values: dict[str, str], capture_filter: str) -> Filter:
    """Join options that are primitives by ``and`` with a capture filter.

    Raises OptionError for an option, FilterError for the filter.
    """
    from unixsock_bpf import filter as language
    from unixsock_bpf.filter.ast import And, join

    typed = language.parse(capture_filter)
    chosen = [(name, value) for name, value in values.items() if _restricts(name, value)]
    if not chosen:
        return typed
    parts = [_term(name, value) for name, value in chosen]
    text = " and ".join(f"--{name} {value}" for name, value in chosen)
    if not typed.takes_everything:
        text += f" and ({typed.text.strip()})"
    return language.Filter(text, join(And, [*parts, typed.root]))


def _restricts(name: str, value: str) -> bool:
    option = BY_NAME.get(name)
    return option is not None and option.primitive and bool(value) and value not in option.neutral


def _term(name: str, value: str) -> Node:
    from unixsock_bpf.filter import FilterError
    from unixsock_bpf.filter.glob import plain
    from unixsock_bpf.filter.primitives import term

    try:
        value.encode()
        return term(name, plain(value))
    except UnicodeEncodeError:
        raise OptionError(f"option --{name}: {_shown(value)} is not UTF-8") from None
    except FilterError as error:
        raise OptionError(f"option --{name}: {error}") from None


def _number(option: Option, values: dict[str, str]) -> int:
    word = values.get(option.name, "")
    if not word:
        return option.default or 0
    if word.isascii() and word.isdigit() and len(word) <= 10 and option.low <= int(word) <= option.high:
        return int(word)
    raise OptionError(
        f"option --{option.name} needs a number from {option.low} to {option.high}, not {_shown(word)}"
    )


def _choice(option: Option, values: dict[str, str]) -> str:
    words = [value for value, _ in option.choices]
    word = values.get(option.name) or words[0]
    if word not in words:
        raise OptionError(f"option --{option.name} needs one of {', '.join(words)}, not {_shown(word)}")
    return word


def _shown(word: str) -> str:
    from unixsock_bpf.filter.errors import shorten

    return shorten(word)
