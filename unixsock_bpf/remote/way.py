"""The way to another host, container or machine: the command that runs ``unixsock`` there.

Only the system's ``ssh`` is used, so that its configuration, agent, jump hosts and shared connections are
what they are in a terminal.  Nothing asks for a password: whoever waits for an answer is a capture.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from unixsock_bpf.errors import ProbeError, UnixsockError

#: How to become root there, by the value of ``--remote-priv``.
PRIVILEGES: dict[str, tuple[str, ...]] = {"sudo": ("sudo", "-n"), "doas": ("doas", "-n"), "none": ()}

#: No pseudo terminal, no questions, nothing forwarded.
_SSH = ("ssh", "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes")
#: A host that does not answer, or no longer, is noticed.  The keys are what ``ssh -G`` prints where the
#: user's configuration sets no limit of its own, which one on the command line would overrule.
_TIME_LIMITS = {
    "connecttimeout none": "ConnectTimeout=15",
    "serveraliveinterval 0": "ServerAliveInterval=5",
}


class WayError(UnixsockError):
    """A way that cannot be gone; the text says why."""


@dataclass(frozen=True)
class Way:
    """``prefix``: what runs a command there.  ``name``: the host, for people and for files.

    ``ssh``: whether the prefix is our call of ssh, whose errors are known.
    """

    prefix: tuple[str, ...]
    name: str
    ssh: bool = False

    def command(self, *words: str) -> list[str]:
        """Return the command that runs ``unixsock`` there; ``words`` are harmless to a shell."""
        return [*self.prefix, "unixsock", *words]


def start(way: Way, words: Sequence[str], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    """Start ``unixsock`` there, with a pipe from its stderr.  Raises ProbeError without such a command."""
    command = way.command(*words)
    try:
        if way.ssh:
            command[1:1] = _time_limits(command[: command.index("--") + 2])
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # no terminal to ask at, and Ctrl-C is for us
        )
    except OSError as error:
        why = (error.strerror or "").lower()
        raise ProbeError(f"Cannot run '{command[0]}' for {way.name}: {why}.") from None


def _time_limits(command: Sequence[str]) -> list[str]:
    """Return, as options, the time limits that ssh's configuration does not set.  Raises OSError."""
    program, *options = command
    done = subprocess.run(
        [program, "-G", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    said = done.stdout.lower().splitlines()
    return [word for line, limit in _TIME_LIMITS.items() if line in said for word in ("-o", limit)]


def by_ssh(
    host: str, *, port: int = 0, user: str = "", jump: str = "", key: str = "", privilege: str = "sudo"
) -> Way:
    """Return the way by ssh.  Raises WayError for what ssh would take for an option."""
    for what, value in (("host", host), ("user", user), ("proxy jump", jump)):
        if value.startswith("-") or not value.isprintable() or " " in value:
            raise WayError(f"The {what} {shlex.quote(ascii(value)[1:-1])} cannot be one.")
    if not host:
        raise WayError("The remote host is missing: give its name, as for ssh.")
    options = [*(("-p", str(port)) if port else ()), *(("-l", user) if user else ())]
    options += [*(("-J", jump) if jump else ()), *(("-i", key) if key else ())]
    return Way((*_SSH, *options, "--", host, *PRIVILEGES[privilege]), _host_name(host), ssh=True)


def _host_name(host: str) -> str:
    """Return the host in ``user@host`` or ``ssh://user@host:port``."""
    name = host.removeprefix("ssh://")
    if name != host:
        name = name.partition("/")[0]
        head, colon, port = name.rpartition(":")
        name = head if colon and port.isdigit() else name
    return name.rpartition("@")[2] or host


def by_command(command: str) -> Way:
    """Return the way by a command that is put in front.  Raises WayError if it has no words."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise WayError(f"The command {shlex.quote(command)} cannot be split into words: {error}.") from None
    if not words:
        raise WayError("The command to put in front is empty.")
    return Way(tuple(words), " ".join(words))


def explain(way: Way, lines: Sequence[str], status: int | None) -> str:
    """Return, in a sentence with its remedy, why a command that ended said ``lines`` on stderr."""
    text = "\n".join(lines)
    for signs, sentence in _SIGNS:
        if any(sign in text for sign in signs):
            return sentence.format(name=way.name, host=way.prefix[-1] if not way.ssh else _host(way))
    last = lines[-1].strip() if lines else ""
    last = last.removeprefix("unixsock: ").rstrip(".")
    if status == 127:
        return _NOT_INSTALLED.format(name=way.name)
    if last:
        return f"On {way.name}: {last}."
    if status is not None and status < 0:
        return f"The command that runs unixsock on {way.name} was ended by signal {-status}."
    return f"The connection to {way.name} has ended (status {status}) without a reason."


def _host(way: Way) -> str:
    return way.prefix[way.prefix.index("--") + 1]


_NOT_INSTALLED = (
    "unixsock is not installed on {name}, or not where a command finds it: install the version there that is"
    " installed here, then try 'unixsock --version' there."
)
_OTHER_VERSION = (
    "unixsock on {name} is of another version, which does not know what this one asks: install the same on"
    " both."
)
#: What stderr has, and the sentence for it.  The first that is found counts.
_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("REMOTE HOST IDENTIFICATION HAS CHANGED",),
        "The host key of {name} is another than the known one: if that is right, run 'ssh-keygen -R {name}',"
        " then 'ssh {host}' once.",
    ),
    (
        ("Host key verification failed", "No ED25519 host key is known", "host key is known for"),
        "The host key of {name} is unknown: run 'ssh {host}' once, compare the key, and accept it.",
    ),
    (
        ("Could not resolve hostname", "Name or service not known"),
        "There is no host {name}: its name cannot be resolved.",
    ),
    (("Connection refused",), "{name} refuses connections: sshd does not run there, or on another port."),
    (
        ("Connection timed out", "No route to host", "Network is unreachable", "Operation timed out"),
        "{name} cannot be reached: it is down, or a network or firewall is between.",
    ),
    (
        ("Permission denied (", "Too many authentication failures"),
        "{name} does not accept this user's keys: run 'ssh-copy-id {host}', or load the key by ssh-add.",
    ),
    (
        (
            "a password is required",
            "a terminal is required",
            "Authorization required",
            "Authentication required",
        ),
        "Becoming root on {name} asks for a password: let a group capture there without one, by"
        " 'sudo unixsock install --system --group unixsock' and --remote-priv none, or by a NOPASSWD rule.",
    ),
    (
        ("is not in the sudoers file", "not allowed to execute", "Operation not permitted\ndoas"),
        "The user may not become root on {name}: let a group capture there, by"
        " 'sudo unixsock install --system --group unixsock', and use --remote-priv none.",
    ),
    (
        ("sudo: not found", "sudo: command not found", "doas: not found", "doas: command not found"),
        "There is no sudo or doas on {name}: log in as root with --remote-priv none, or choose the other.",
    ),
    (
        (
            *("unixsock: not found", "unixsock: command not found", "unixsock: No such file"),
            *('"unixsock": executable file not found', "unknown command: unixsock"),
        ),
        _NOT_INSTALLED,
    ),
    (("unrecognised argument", "unrecognized argument", "invalid choice"), _OTHER_VERSION),
    (
        ("Timeout, server", "Connection reset", "Broken pipe", "closed by remote host", "Connection to"),
        "The connection to {name} broke; everything received is kept.",
    ),
)
