"""``unixsock sockets``: list existing sockets, count them, or show who waits for room in their queues."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from unixsock_bpf.cli.arguments import add_filter, add_options, chosen_filter
from unixsock_bpf.cli.errors import Failure, say
from unixsock_bpf.filter import Filter
from unixsock_bpf.filter.near import near
from unixsock_bpf.filter.sockets import select
from unixsock_bpf.formats.text import harmless, name_text, process_text, type_name
from unixsock_bpf.linux import procfs
from unixsock_bpf.linux.socket_files import Places
from unixsock_bpf.linux.sockets import Peers, Socket, SocketsError, State, sockets

_HEADINGS = (
    "TYPE",
    "STATE",
    "RECV-Q",
    "SEND-Q",
    "INODE",
    "PEER",
    "PROCESS",
    "NAME",
    "PEER PROCESS",
    "PEER NAME",
)
_WAITING_HEADINGS = ("PROCESS", "THREAD", "WAITS TO", "TYPE", "QUEUED", "LIMIT", "QUEUE OF", "NAME")
_GROUPS = ("process", "path", "user")
_WATCH_S = 2.0


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "sockets", help="list the present sockets with both endpoints", allow_abbrev=False
    )
    add_filter(parser)
    parser.add_argument("--format", choices=("table", "json", "dot"), default="table", help="default: table")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="as --format json")
    views = parser.add_mutually_exclusive_group()
    views.add_argument(
        "--waiting", action="store_true", help="list the threads that wait for room in a queue"
    )
    views.add_argument(
        "--group-by", metavar="KEYS", type=_keys, help="count by process, path or user, or by several: a,b"
    )
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=_seconds,
        const=_WATCH_S,
        help=f"show it anew again and again, in place on a terminal; default: every {_WATCH_S:g} s",
    )
    add_options(parser, terms_only=True)
    parser.set_defaults(run=run)


def _keys(text: str) -> list[str]:
    keys = text.split(",")
    if not all(key in _GROUPS for key in keys) or len(set(keys)) < len(keys):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none, or several joined by ',', of {', '.join(_GROUPS)}"
        )
    return keys


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 86400")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Print the table, once or again and again.  Raises Failure."""
    wanted = chosen_filter(arguments)
    if arguments.format == "dot" and (arguments.waiting or arguments.group_by):
        raise Failure("--format dot shows connections: it cannot be joined with --waiting or --group-by", 2)
    if arguments.watch is None:
        text, remarks = _shown(arguments, wanted)
        _write(text)
        for remark in remarks:
            say(f"unixsock: {remark}")
        return 0
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    while True:
        text, _ = _shown(arguments, wanted)
        _write(_in_place(text) if sys.stdout.isatty() else text)
        if ended.wait(arguments.watch):
            return 0


def _in_place(text: str) -> str:
    """Return ``text`` over what the terminal shows: home, each line to its end, and nothing below."""
    rows = os.get_terminal_size(sys.stdout.fileno()).lines if sys.stdout.isatty() else 0
    lines = text.splitlines()
    if rows and len(lines) >= rows:
        lines = [*lines[: rows - 2], f"… {len(lines) - rows + 2} more"]
    return "\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def _shown(arguments: argparse.Namespace, wanted: Filter) -> tuple[str, list[str]]:
    """Return what to print, and remarks.  Raises Failure."""
    try:
        present = sockets()
    except SocketsError as error:
        raise Failure(str(error)) from None
    peers = Peers(present)
    shown = sorted((one for one, _ in select(present, wanted)), key=_order)
    as_json = arguments.format == "json"
    if arguments.waiting:
        text = _waiting(present, shown, as_json)
    elif arguments.group_by:
        text = _grouped(shown, peers, arguments.group_by, as_json)
    elif as_json:
        text = _json(shown, peers)
    elif arguments.format == "dot":
        text = _graph(shown, peers)
    else:
        text = _table_of_sockets(shown, peers)
    remarks = [] if shown else near(wanted, present)
    if os.geteuid() != 0 and arguments.format == "table":
        remarks.append("the processes of other users are only shown to root")
    return text, remarks


def _order(one: Socket) -> tuple[bytes, bool, int]:
    return one.name, one.state != State.LISTENING, one.inode or one.peer


def state_text(number: int) -> str:
    """Return a state's name."""
    return State(number).name.lower() if number in State._value2member_map_ else str(number)


def processes_text(one: Socket | None) -> str:
    """Return a socket's youngest process and how many more hold it; ``-`` if none is known."""
    if one is None or not one.owners:
        return "-"
    first = process_text(one.owners[0].comm, one.owners[0].tgid)
    return first if len(one.owners) == 1 else f"{first} +{len(one.owners) - 1}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns below their headings."""
    # One format for all rows: with tens of thousands of sockets, nearly all of the time goes by here.
    rows = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    line = "  ".join(f"{{:{width}}}" for width in widths)
    return "".join(line.format(*row).rstrip() + "\n" for row in rows)


def _table_of_sockets(shown: list[Socket], peers: Peers) -> str:
    places = Places(shown)
    rows = []
    for one in shown:
        peer = peers.of(one)
        waits = not one.inode or (peer is not None and not peer.inode)
        rows.append(
            (
                type_name(one.type),
                "not accepted" if waits else state_text(one.state),
                str(one.receive_queue) if one.inode else "-",
                str(one.send_queue) if one.inode else "-",
                str(one.inode or "-"),
                str(one.peer or "-"),
                processes_text(one),
                _name(one, places) or "-",
                processes_text(peer),
                (name_text(peer.name) if peer else "") or "-",
            )
        )
    return table(_HEADINGS, rows)


def _name(one: Socket, places: Places) -> str:
    """Return a socket's path, and where that is not all, its bound name or that it is stale."""
    place, name = places.of(one), name_text(one.name)
    if place.path:
        return f"{harmless(place.path)} (bound as {name})"
    return f"{name} (stale)" if place.stale else name


class _Descriptors:
    """Which descriptors of a process lead to a socket; each process is looked at once."""

    def __init__(self) -> None:
        self._found: dict[int, dict[int, list[int]]] = {}

    def of(self, pid: int, inode: int) -> list[int]:
        """Return the numbers, in order; none where they are not visible."""
        if pid not in self._found:
            by_inode = self._found[pid] = {}
            for number, target in procfs.descriptors(pid):
                by_inode.setdefault(procfs.socket_inode(target), []).append(number)
        return sorted(self._found[pid].get(inode, ())) if inode else []


def _endpoint(one: Socket, descriptors: _Descriptors) -> dict[str, Any]:
    return {
        "inode": one.inode or None,
        "name": name_text(one.name) or None,
        "processes": [
            {
                "pid": owner.tgid,
                "comm": owner.comm.decode(errors="backslashreplace"),
                "uid": owner.uid,
                "gid": owner.gid,
                "fds": descriptors.of(owner.tgid, one.inode),
            }
            for owner in one.owners
        ],
    }


def _array(objects: Sequence[Any]) -> str:
    return "[" + ",\n ".join(json.dumps(one) for one in objects) + "]\n"


def _json(shown: list[Socket], peers: Peers) -> str:
    places, descriptors = Places(shown), _Descriptors()
    objects = []
    for one in shown:
        peer, place = peers.of(one), places.of(one)
        about = {
            "type": type_name(one.type),
            "state": state_text(one.state),
            "receive_queue": one.receive_queue if one.inode else None,
            "send_queue": one.send_queue if one.inode else None,
            "netns": one.netns,
            "peer": _endpoint(peer, descriptors) if peer else {"inode": one.peer} if one.peer else None,
        }
        if place.path:
            about["path"] = harmless(place.path)
        if place.stale:
            about["stale"] = True
        objects.append(_endpoint(one, descriptors) | about)
    return _array(objects)


def _waiting(present: list[Socket], shown: list[Socket], as_json: bool) -> str:
    """Return who waits for room in the queue of one of ``shown``, or of their peers."""
    from unixsock_bpf.linux.blocked import blocked

    wanted = {(one.inode, one.peer) for one in shown}
    found = sorted(
        (
            one
            for one in blocked(present)
            if any(end and (end.inode, end.peer) in wanted for end in (one.socket, one.queue))
        ),
        key=lambda one: (one.name, one.owner.tgid, one.tid),
    )
    if as_json:
        descriptors = _Descriptors()
        return _array(
            [
                {
                    "pid": one.owner.tgid,
                    "tid": one.tid,
                    "comm": one.owner.comm.decode(errors="backslashreplace"),
                    "uid": one.owner.uid,
                    "waits_to": one.call,
                    "inode": one.socket.inode if one.socket else None,
                    "name": name_text(one.name) or None,
                    "queue": _endpoint(one.queue, descriptors) | _queue(one.queue) if one.queue else None,
                }
                for one in found
            ]
        )
    rows = []
    for one in found:
        queue = _queue(one.queue)
        rows.append(
            (
                process_text(one.owner.comm, one.owner.tgid),
                str(one.tid),
                one.call,
                type_name(one.socket.type) if one.socket else "?",
                *(str(queue[key]) if queue.get(key) is not None else "-" for key in ("queued", "limit")),
                processes_text(one.queue),
                name_text(one.name) or "-",
            )
        )
    return table(_WAITING_HEADINGS, rows)


def _queue(one: Socket | None) -> dict[str, int | None]:
    """Return how full a queue is: connections of a listener, else bytes; None where that is not known."""
    if one is None or not one.inode:
        return {"queued": None, "limit": None}
    return {"queued": one.receive_queue, "limit": one.send_queue if one.state == State.LISTENING else None}


def _grouped(shown: list[Socket], peers: Peers, keys: Sequence[str], as_json: bool) -> str:
    """Return how many sockets there are of each process, path or user, most first."""
    get = {"process": _process, "path": _path, "user": _user}
    counts: dict[tuple[str, ...], list[int]] = {}
    for one in shown:
        group = tuple(get[key](one, peers) for key in keys)
        count = counts.setdefault(group, [0, 0])
        count[0] += 1
        count[1] += one.receive_queue if one.state != State.LISTENING else 0
    groups = sorted(counts.items(), key=lambda one: (-one[1][0], one[0]))
    if as_json:
        return _array(
            [
                {"count": count, "receive_queue": queued}
                | {key: value or None for key, value in zip(keys, group)}
                for group, (count, queued) in groups
            ]
        )
    rows = [
        (str(count), str(queued), *(value or "-" for value in group)) for group, (count, queued) in groups
    ]
    return table(("COUNT", "RECV-Q", *(key.upper() for key in keys)), rows)


def _process(one: Socket, peers: Peers) -> str:
    return "" if not one.owners else process_text(one.owners[0].comm, one.owners[0].tgid)


def _path(one: Socket, peers: Peers) -> str:
    peer = peers.of(one)
    return name_text(one.name or (peer.name if peer else b""))


def _user(one: Socket, peers: Peers) -> str:
    import pwd

    if not one.owners:
        return ""
    try:
        return harmless(pwd.getpwuid(one.owners[0].uid).pw_name.encode())
    except KeyError:
        return str(one.owners[0].uid)


def _graph(shown: list[Socket], peers: Peers) -> str:
    """Return who is connected to whom, as a graph for Graphviz."""
    from unixsock_bpf.export.dot import graph

    pairs: dict[tuple[str, str, str, str], int] = {}
    seen: set[int] = set()
    for one in shown:
        peer = peers.of(one)
        if peer is None or one.inode in seen:
            continue
        seen.add(peer.inode)
        client, server = (peer, one) if one.name and not peer.name else (one, peer)
        name = name_text(server.name or client.name) or "(unnamed)"
        key = processes_text(client), processes_text(server), name, type_name(one.type)
        pairs[key] = pairs.get(key, 0) + 1
    edges = (
        (client, server, [name, f"{count} {kind}{'' if count == 1 else 's'}"])
        for (client, server, name, kind), count in pairs.items()
    )
    return "".join(graph(edges))
