"""The extcap protocol: what Wireshark asks of an external capture program, and the answers.

Source: Wireshark's doc/extcap and its source, 4.0 to 4.6.  Each verb imports only what it
needs: Wireshark asks several times before each capture, and at each key in the filter box.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unixsock_bpf import dependencies, own_files
from unixsock_bpf.errors import harmless
from unixsock_bpf.linux import standard_streams
from unixsock_bpf.options import (
    BY_NAME,
    HOST_OPTIONS,
    OPTIONS,
    Option,
    OptionError,
    Settings,
    remote_port,
    remote_privilege,
    scan,
    settings,
)
from unixsock_bpf.version import __version__

if TYPE_CHECKING:
    from unixsock_bpf.remote.way import Way

INTERFACE, REMOTE_INTERFACE = "unixsock", "unixsock-ssh"
DISPLAY = "Unix sockets"
#: Each interface: what Wireshark shows, and its options.
_INTERFACES: dict[str, tuple[str, Sequence[Option]]] = {
    INTERFACE: (DISPLAY, OPTIONS),
    REMOTE_INTERFACE: ("Unix sockets of another host", HOST_OPTIONS),
}
#: LINKTYPE_WIRESHARK_UPPER_PDU, as in pcapng.py
_LINKTYPE = 252

#: The protocol's own options: name, and whether it takes a value.
_PROTOCOL = {
    "capture": False,
    "extcap-interfaces": False,
    "extcap-dlts": False,
    "extcap-config": False,
    "extcap-cleanup-postkill": False,
    "extcap-version": True,
    "extcap-interface": True,
    "extcap-capture-filter": True,
    "extcap-reload-option": True,
    "extcap-control-in": True,
    "extcap-control-out": True,
    "fifo": True,
    "help": False,
    "version": False,
}

_USAGE = f"""\
This is the extcap "{DISPLAY}" {__version__}: Wireshark, dumpcap and tshark run it.
  tshark -i {INTERFACE} -f 'path /run/docker.sock'
  {INTERFACE} dump 'path /run/docker.sock'
captures; "{INTERFACE} check" shows what is missing if that fails.
"""


class UsageError(ValueError):
    """A call that is not in the protocol; the text says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one call.  Exit status: 0; 2 for a call that is not in the protocol; 1 for a failed capture."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if argv is None:
        standard_streams.prepare()
    try:
        if "--capture" in arguments:
            return capture(arguments)
        text = answer(arguments)
    except (UsageError, OptionError) as error:
        return _refuse(str(error), 2)
    except ImportError as error:
        sentence = dependencies.sentence(error)
        if sentence is None:
            raise
        return _refuse(sentence, 1)
    try:
        sys.stdout.buffer.write(text.encode(errors="replace"))
        sys.stdout.flush()
    except standard_streams.OutputError as error:
        return _refuse(str(error), 1)
    except BrokenPipeError:  # the answer is not wanted any more
        return 0
    return 0


def _refuse(why: str, status: int) -> int:
    try:
        sys.stderr.buffer.write(harmless(f"{INTERFACE}: {why}\n").encode(errors="replace"))
        sys.stderr.flush()
    except OSError:  # stderr is closed; the status has to do
        pass
    return status


def answer(arguments: Sequence[str]) -> str:
    """Return the answer to a call other than --capture.  Raises UsageError, OptionError."""
    # Before any other: with an unknown version of Wireshark come unknown options.
    if "--extcap-interfaces" in arguments:
        return interfaces()
    if not arguments:
        return _USAGE
    values, words = scan(arguments, _known(arguments))
    if words:
        raise UsageError(f"unexpected word '{words[0]}'")
    for verb, (needs_interface, respond) in _VERBS.items():
        if verb in values:
            if needs_interface:
                _check_interface(values)
            return respond(values)
    raise UsageError("nothing to do: no verb such as --extcap-interfaces was given")


def capture(arguments: Sequence[str]) -> int:
    """Capture until stopped.

    Faults in the options are reported once Wireshark's pipes are open: before that it
    does not listen, and would wait for ever.
    """
    from unixsock_bpf.extcap import session

    try:
        chosen, ways = capture_settings(arguments), capture_ways(arguments)
    except (UsageError, OptionError) as error:
        return session.run_refused(
            _value(arguments, "fifo"), _value(arguments, "extcap-control-in"), str(error)
        )
    return session.run(chosen, ways)


def capture_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings in a --capture call.  Raises UsageError, OptionError."""
    values, words = scan(arguments, _known(arguments))
    if words:
        raise UsageError(f"unexpected word '{words[0]}'")
    _check_interface(values)
    if not values.get("fifo"):
        raise UsageError("--capture needs --fifo")
    return settings(
        values,
        values.get("extcap-capture-filter", ""),
        values["fifo"],
        values.get("extcap-control-in"),
        values.get("extcap-control-out"),
    )


def _known(arguments: Sequence[str]) -> dict[str, bool]:
    """Return the options of the call's interface, and the protocol's: name, and whether it takes a value."""
    _, options = _INTERFACES.get(_value(arguments, "extcap-interface") or "", ("", OPTIONS))
    return _PROTOCOL | {option.name: not option.is_flag for option in options}


def capture_ways(arguments: Sequence[str]) -> list[Way]:
    """Return the ways to other hosts in a --capture call; none for this one.  Raises OptionError."""
    values, _ = scan(arguments, _known(arguments))
    return _ways(values) if values.get("extcap-interface") == REMOTE_INTERFACE else []


def _ways(values: dict[str, str]) -> list[Way]:
    """Return the ways that the options name.  Raises OptionError."""
    from unixsock_bpf.remote.way import WayError, by_command, by_ssh

    hosts = values.get("remote-host", "").replace(",", " ").split()
    try:
        if values.get("via"):
            return [by_command(values["via"])]
        if not hosts:
            raise OptionError("The remote host is missing: enter it in the interface's options.")
        return [
            by_ssh(
                host,
                port=remote_port(values),
                user=values.get("remote-username", ""),
                jump=values.get("proxy-jump", ""),
                key=values.get("sshkey", ""),
                privilege=remote_privilege(values),
            )
            for host in hosts
        ]
    except WayError as error:
        raise OptionError(str(error)) from None


def _value(arguments: Sequence[str], name: str) -> str | None:
    """Return the value of an option in a call that may be wrong elsewhere."""
    for word, following in zip(arguments, [*arguments[1:], ""]):
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
        if word == f"--{name}":
            return following or None
    return None


def _check_interface(values: dict[str, str]) -> None:
    name = values.get("extcap-interface")
    if name is None:
        raise UsageError("--extcap-interface is missing")
    if name not in _INTERFACES:
        known = " and ".join(f"'{one}'" for one in _INTERFACES)
        raise UsageError(f"there is no interface '{name}'; there are {known}")


def sentence(kind: str, **fields: object) -> str:
    """Format a line of the protocol, without fields that are None or empty."""
    parts = "".join(
        f"{{{key}={_clean(str(value))}}}" for key, value in fields.items() if value not in (None, "")
    )
    return f"{kind} {parts}\n"


def _clean(value: str) -> str:
    """Return ``value`` without what would end its field or its line."""
    return "".join("?" if c == "}" or not c.isprintable() else c for c in value)


def interfaces() -> str:
    """Answer --extcap-interfaces: version, interface and toolbar."""
    from unixsock_bpf.extcap.control_protocol import CONTROLS

    manual = own_files.find("docs/filter.md")
    return "".join(
        [
            sentence(
                "extcap", version=__version__, help=f"file://{manual}" if manual else "", display=DISPLAY
            ),
            *(sentence("interface", value=name, display=shown) for name, (shown, _) in _INTERFACES.items()),
            *(sentence("control", number=int(number), **words) for number, words in CONTROLS.items()),
        ]
    )


def dlts() -> str:
    """Answer --extcap-dlts."""
    return sentence("dlt", number=_LINKTYPE, name=INTERFACE.upper(), display="Unix sockets (exported PDU)")


def config(interface: str) -> str:
    """Answer --extcap-config: the interface's options in the order of their table."""
    _, options = _INTERFACES[interface]
    return "".join(_argument(number, option) for number, option in enumerate(options))


def _argument(number: int, option: Option) -> str:
    default = "false" if option.is_flag else option.default
    # Wireshark fills a number without a default with 0 and refuses an empty one: texts may be empty.
    kind = "string" if option.kind == "number" else option.kind
    lines = [
        sentence(
            "arg",
            number=number,
            call=f"--{option.name}",
            display=option.label,
            tooltip=option.tooltip,
            type=kind,
            default=default,
            validation=option.validation,
            placeholder=option.placeholder,
            reload="true" if option.reload else None,
            group=option.group,
        )
    ]
    lines += [
        sentence("value", arg=number, value=value, display=text, default="true" if at == 0 else "false")
        for at, (value, text) in enumerate(option.choices)
    ]
    return "".join(lines)


def reload(name: str, values: dict[str, str]) -> str:
    """List the present values of selector ``name``.  ``values``: those that the dialog shows."""
    option = BY_NAME.get(name.lstrip("-"))
    if option is None or not option.reload:
        raise UsageError(f"option '{name}' has nothing to reload")
    _, options = _INTERFACES[values["extcap-interface"]]
    number = options.index(option)
    offered = [*option.choices, *_sockets(values)]
    current = values.get(option.name, "")
    if current and current not in [value for value, _ in offered]:
        offered.insert(1, (current, current))
    return "".join(
        sentence("value", arg=number, value=value, display=text, default="true" if at == 0 else "false")
        for at, (value, text) in enumerate(offered)
    )


def _sockets(values: dict[str, str]) -> list[tuple[str, str]]:
    """Return the present sockets, of another host where those are asked for.

    Where a host cannot list them, the reason is among the texts: the dialog shows no errors.
    """
    if values["extcap-interface"] == INTERFACE:
        from unixsock_bpf.linux.listed_sockets import choices

        return choices()
    from unixsock_bpf.errors import UnixsockError
    from unixsock_bpf.remote import sockets

    try:
        listed, problems = sockets.choices(_ways(values))
    except (OptionError, UnixsockError) as error:
        return [("*", str(error))]
    return [*(("*", problem) for problem in problems), *listed]


def validate(capture_filter: str) -> str:
    """Answer --extcap-capture-filter: nothing for a good filter, else what is wrong with it."""
    from unixsock_bpf.filter import FilterError, parse

    try:
        parse(capture_filter)
    except FilterError as error:
        return f"{error}\n"
    return ""


def _config_or_reload(values: dict[str, str]) -> str:
    if "extcap-reload-option" in values:
        return reload(values["extcap-reload-option"], values)
    return config(values["extcap-interface"])


#: Verbs in the order in which they are looked for: needs --extcap-interface, and the answer.
_VERBS: dict[str, tuple[bool, Callable[[dict[str, str]], str]]] = {
    "extcap-dlts": (True, lambda _: dlts()),
    "extcap-config": (True, _config_or_reload),
    "extcap-capture-filter": (True, lambda values: validate(values["extcap-capture-filter"])),
    "extcap-cleanup-postkill": (False, lambda _: ""),  # the kernel removes a dead capture's probes
    "help": (False, lambda _: _USAGE),
    "version": (False, lambda _: f"{INTERFACE} {__version__}\n"),
    "extcap-version": (False, lambda _: f"{INTERFACE} {__version__}\n"),
}
